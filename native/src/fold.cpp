#include "fold.hpp"

#include <map>
#include <stdexcept>
#include <string>

namespace dsclora {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text;
    for (int64_t side : shape) text += (text.empty() ? "(" : ", ") + std::to_string(side);
    return text.empty() ? "()" : text + ")";
}

// The tensors by name; each is to be taken once.
class Tensors {
public:
    Tensors(const dsclora_tensor* tensors, int count) {
        for (int n = 0; n < count; ++n)
            if (!by_name_.emplace(tensors[n].name, &tensors[n]).second)
                throw std::invalid_argument(std::string(tensors[n].name) + " is there twice");
    }

    const float* take(const std::string& name, const std::vector<int64_t>& shape) {
        const auto found = by_name_.find(name);
        if (found == by_name_.end()) throw std::invalid_argument(name + " is missing");
        const dsclora_tensor& tensor = *found->second;
        const std::vector<int64_t> actual(tensor.shape, tensor.shape + tensor.dimensions);
        if (actual != shape)
            throw std::invalid_argument(name + " has shape " + shape_text(actual) + ", expected " + shape_text(shape));
        by_name_.erase(found);
        return tensor.data;
    }

    Layer take_conv(const std::string& prefix, int outputs, int inputs, int size = 3) {
        const float* weight = take(prefix + ".weight", {outputs, inputs, size, size});
        const float* bias = take(prefix + ".bias", {outputs});
        const size_t length = size_t(outputs) * inputs * size * size;
        return {outputs, inputs, size, {weight, weight + length}, {bias, bias + outputs}};
    }

    void check_all_taken() const {
        if (!by_name_.empty()) throw std::invalid_argument(by_name_.begin()->first + " is no tensor of a plain SPAN");
    }

private:
    std::map<std::string, const dsclora_tensor*> by_name_;
};

// The inputs [first, first + count) of a conv, without its bias.
Layer inputs_of(const Layer& conv, int first, int count) {
    Layer part{conv.outputs, count, conv.size, {}, {}};
    const size_t area = size_t(conv.size) * conv.size;
    for (int o = 0; o < conv.outputs; ++o) {
        const float* from = conv.weight.data() + (size_t(o) * conv.inputs + first) * area;
        part.weight.insert(part.weight.end(), from, from + count * area);
    }
    return part;
}

// The weights that a 1x1 conv (outputs, channels) makes of those of a conv (channels, inputs, 3, 3).
std::vector<float> weight_after(const Layer& pointwise, const Layer& conv) {
    const size_t length = conv.weight.size() / conv.outputs;
    std::vector<float> weight;
    for (int o = 0; o < pointwise.outputs; ++o)
        for (size_t n = 0; n < length; ++n) {
            double sum = 0;
            for (int c = 0; c < conv.outputs; ++c)
                sum += double(pointwise.weight[size_t(o) * pointwise.inputs + c]) * conv.weight[c * length + n];
            weight.push_back(static_cast<float>(sum));
        }
    return weight;
}

double bias_after(const Layer& pointwise, const Layer& conv, int output) {
    double sum = 0;
    for (int c = 0; c < conv.outputs; ++c)
        sum += double(pointwise.weight[size_t(output) * pointwise.inputs + c]) * conv.bias[c];
    return sum;
}

// Two convs whose outputs are added as one conv of both inputs, without bias.
Layer side_by_side(int outputs, const std::vector<float>& first, const std::vector<float>& second, int size) {
    const size_t one = first.size() / outputs, other = second.size() / outputs;
    Layer joined{outputs, static_cast<int>((one + other) / (size * size)), size, {}, {}};
    for (int o = 0; o < outputs; ++o) {
        joined.weight.insert(joined.weight.end(), first.begin() + o * one, first.begin() + (o + 1) * one);
        joined.weight.insert(joined.weight.end(), second.begin() + o * other, second.begin() + (o + 1) * other);
    }
    return joined;
}

}  // namespace

FoldedSpan fold(const dsclora_tensor* tensors, int count, int channels, int scale) {
    if (channels < 1 || channels > 4096) throw std::invalid_argument("expected 1 to 4096 channels");
    if (scale < 1 || scale > 4) throw std::invalid_argument("expected a scale of 1 to 4");
    Tensors all(tensors, count);
    FoldedSpan folded;
    folded.convs.push_back(all.take_conv("conv_1.eval_conv", channels, 3));
    for (int block = 1; block <= BLOCKS; ++block)
        for (int conv = 1; conv <= 3; ++conv)
            folded.convs.push_back(all.take_conv(
                "block_" + std::to_string(block) + ".c" + std::to_string(conv) + "_r.eval_conv", channels, channels));
    const Layer conv_1 = folded.convs.front(), conv_2 = all.take_conv("conv_2.eval_conv", channels, channels);
    const Layer conv_cat = all.take_conv("conv_cat", channels, 4 * channels, 1);
    const Layer upsampler = all.take_conv("upsampler.0", 3 * scale * scale, channels);
    all.check_all_taken();

    const Layer of_conv_1 = inputs_of(conv_cat, 0, channels), of_conv_2 = inputs_of(conv_cat, channels, channels);
    Layer joint = side_by_side(channels, weight_after(of_conv_2, conv_2), weight_after(of_conv_1, conv_1), 3);
    for (int o = 0; o < channels; ++o)
        joint.bias.push_back(
            static_cast<float>(conv_cat.bias[o] + bias_after(of_conv_2, conv_2, o) + bias_after(of_conv_1, conv_1, o)));
    folded.convs.push_back(std::move(joint));
    folded.convs.push_back(upsampler);
    folded.pointwise = inputs_of(conv_cat, 2 * channels, 2 * channels);
    return folded;
}

}  // namespace dsclora
