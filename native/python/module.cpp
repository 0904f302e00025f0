// The Python module: arrays in, arrays out, the interpreter's lock released in between. The rest is behind the C face.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "dsclora.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Array = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Source = nb::ndarray<nb::ro, nb::ndim<3>, nb::device::cpu>;
using Target = nb::ndarray<nb::ndim<3>, nb::device::cpu>;
using Result = nb::ndarray<nb::numpy, float>;

// The arrays of a dictionary, as the C face takes them.
class Tensors {
public:
    explicit Tensors(const nb::dict& by_name) {
        for (auto [name, array] : by_name) {
            names_.push_back(nb::cast<std::string>(name));
            arrays_.push_back(nb::cast<Array>(array));
        }
        for (const Array& array : arrays_) {
            shapes_.emplace_back();
            for (size_t n = 0; n < array.ndim(); ++n) shapes_.back().push_back(static_cast<int64_t>(array.shape(n)));
        }
        for (size_t n = 0; n < arrays_.size(); ++n)
            tensors_.push_back({names_[n].c_str(), arrays_[n].data(), shapes_[n].data(), static_cast<int>(arrays_[n].ndim())});
    }
    const dsclora_tensor* data() const { return tensors_.data(); }
    int size() const { return static_cast<int>(tensors_.size()); }

private:
    std::vector<std::string> names_;
    std::vector<Array> arrays_;
    std::vector<std::vector<int64_t>> shapes_;
    std::vector<dsclora_tensor> tensors_;
};

void raise_if(int code, const char* error) {
    if (code == DSCLORA_OUT_OF_MEMORY) throw std::bad_alloc();
    if (code != DSCLORA_OK) throw std::invalid_argument(error);
}

template <typename T>
dsclora_picture picture(T& array) {
    dsclora_picture p;
    ptrdiff_t size = 4;
    if (array.shape(2) != 3) throw std::invalid_argument("expected (h, w, 3)");
    if (array.dtype() == nb::dtype<uint8_t>())
        p.kind = DSCLORA_U8, size = 1;
    else if (array.dtype() == nb::dtype<uint16_t>())
        p.kind = DSCLORA_U16, size = 2;
    else if (array.dtype() == nb::dtype<float>())
        p.kind = DSCLORA_F32;
    else
        throw std::invalid_argument("expected uint8, uint16 or float32");
    p.data = const_cast<void*>(static_cast<const void*>(array.data()));
    p.height = static_cast<int64_t>(array.shape(0)), p.width = static_cast<int64_t>(array.shape(1));
    p.row = array.stride(0) * size, p.column = array.stride(1) * size, p.band = array.stride(2) * size;
    return p;
}

class Span {
public:
    Span(const nb::dict& weights, int scale, int channels, const std::array<float, 3>& mean, float range,
         const std::string& kernel) {
        const Tensors tensors(weights);
        char error[256] = "";
        span_.reset(dsclora_create(tensors.data(), tensors.size(), scale, channels, mean.data(), range, kernel.c_str(), error,
                                   sizeof error));
        if (!span_) throw std::invalid_argument(error);
    }

    void run(Source from, Target to, int threads, int64_t top, int64_t left) {
        const dsclora_picture source = picture(from), target = picture(to);
        char error[256] = "";
        int code;
        {
            nb::gil_scoped_release unlocked;
            code = dsclora_run(span_.get(), &source, &target, top, left, threads, error, sizeof error);
        }
        raise_if(code, error);
    }

    const char* kernel() const { return dsclora_kernel_of(span_.get()); }

private:
    struct Destroy {
        void operator()(dsclora_span* span) const { dsclora_destroy(span); }
    };
    std::unique_ptr<dsclora_span, Destroy> span_;
};

std::vector<std::string> kernels() {
    std::vector<std::string> names;
    for (int n = 0; dsclora_kernel(n); ++n) names.emplace_back(dsclora_kernel(n));
    return names;
}

Result array(std::unique_ptr<float[]> data, std::initializer_list<size_t> shape) {
    float* const first = data.get();
    nb::capsule owner(data.release(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return Result(first, shape, owner);
}

std::tuple<Result, Result, Result> fold(const nb::dict& weights, int scale, int channels) {
    const Tensors tensors(weights);
    if (channels < 1 || channels > 4096) throw std::invalid_argument("expected 1 to 4096 channels");
    const size_t c = static_cast<size_t>(channels);
    std::unique_ptr<float[]> joint(new float[c * (c + 3) * 9]), bias(new float[c]), pointwise(new float[c * 2 * c]);
    char error[256] = "";
    raise_if(dsclora_fold(tensors.data(), tensors.size(), scale, channels, joint.get(), bias.get(), pointwise.get(), error,
                          sizeof error),
             error);
    return {array(std::move(joint), {c, c + 3, 3, 3}), array(std::move(bias), {c}), array(std::move(pointwise), {c, 2 * c})};
}

}  // namespace

NB_MODULE(_native, m) {
    m.def("kernels", &kernels, "Return the names of the instruction sets built in that this processor has, the best first.");
    m.def(
        "fold", &fold, "weights"_a, "scale"_a, "channels"_a,
        "Fold the linear parts of a plain SPAN, as `Span` does, and return the weight and bias of the 3x3 conv that joins four "
        "depths and the weight of the 1x1 conv.");
    nb::class_<Span>(m, "Span", "A plain SPAN ready to run.")
        .def(nb::init<const nb::dict&, int, int, const std::array<float, 3>&, float, const std::string&>(), "weights"_a,
             "scale"_a, "channels"_a, "mean"_a, "range"_a, "kernel"_a = "",
             "Pack the 44 float32 tensors of a model file, by name, for an instruction set: the best by default.")
        .def("run", &Span::run, "source"_a.noconvert(), "target"_a.noconvert(), "threads"_a, "top"_a = 0, "left"_a = 0,
             "Enlarge the part of (h, w, 3), any strides, that begins at pixel (top, left) into (part's h * scale, part's w * "
             "scale, 3), rows of contiguous pixels: uint8, uint16, or float32 in 0..1.")
        .def_prop_ro("kernel", &Span::kernel, "Name of the instruction set.");
}
