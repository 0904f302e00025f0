// The native network against a plain one, over pictures of random sizes: what the sanitizers are run on.
//   check [seconds] [seed]
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "dsclora.h"

namespace {

constexpr int BLOCKS = 6;
std::mt19937 random_bits;

int uniform(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_bits); }

struct Conv {
    std::string name;
    int outputs, inputs, size;
    std::vector<float> weight, bias;
};

// A network as its file holds it, with random weights.
struct Net {
    int channels, scale;
    std::vector<Conv> convs;  // conv_1, the blocks' convs, conv_2, conv_cat, the pixel shuffle's

    Net(int c, int s) : channels(c), scale(s) {
        add("conv_1.eval_conv", c, 3, 3);
        for (int n = 0; n < 3 * BLOCKS; ++n)
            add("block_" + std::to_string(n / 3 + 1) + ".c" + std::to_string(n % 3 + 1) + "_r.eval_conv", c, c, 3);
        add("conv_2.eval_conv", c, c, 3);
        add("conv_cat", c, 4 * c, 1);
        add("upsampler.0", 3 * s * s, c, 3);
    }

    void add(const std::string& name, int outputs, int inputs, int size) {
        std::normal_distribution<float> normal(0, 1.2f / std::sqrt(float(inputs * size * size)));
        Conv conv{name, outputs, inputs, size, {}, {}};
        for (int n = 0; n < outputs * inputs * size * size; ++n) conv.weight.push_back(normal(random_bits));
        for (int n = 0; n < outputs; ++n) conv.bias.push_back(0.3f + 0.1f * normal(random_bits));
        convs.push_back(conv);
    }

    dsclora_span* open(const char* kernel, char* error, size_t error_size) const {
        std::vector<std::string> names;
        std::vector<std::vector<int64_t>> shapes;
        for (const Conv& conv : convs) {
            names.push_back(conv.name + ".weight"), names.push_back(conv.name + ".bias");
            shapes.push_back({conv.outputs, conv.inputs, conv.size, conv.size}), shapes.push_back({conv.outputs});
        }
        std::vector<dsclora_tensor> tensors;
        for (size_t n = 0; n < names.size(); ++n)
            tensors.push_back({names[n].c_str(), (n % 2 ? convs[n / 2].bias : convs[n / 2].weight).data(), shapes[n].data(),
                               static_cast<int>(shapes[n].size())});
        const float mean[3] = {0.4f, 0.4f, 0.4f};
        return dsclora_create(tensors.data(), static_cast<int>(tensors.size()), scale, channels, mean, 2.0f, kernel, error,
                              error_size);
    }
};

using Planes = std::vector<std::vector<float>>;  // [channel][y * width + x]

Planes convolve(const Conv& w, const Planes& in, int height, int width) {
    const int reach = w.size / 2;
    Planes out(w.outputs, std::vector<float>(size_t(height) * width));
    for (int o = 0; o < w.outputs; ++o)
        for (int y = 0; y < height; ++y)
            for (int x = 0; x < width; ++x) {
                double sum = w.bias[o];
                for (int i = 0; i < w.inputs; ++i)
                    for (int dy = -reach; dy <= reach; ++dy)
                        for (int dx = -reach; dx <= reach; ++dx)
                            if (y + dy >= 0 && y + dy < height && x + dx >= 0 && x + dx < width)
                                sum += double(w.weight[((o * w.inputs + i) * w.size + dy + reach) * w.size + dx + reach]) *
                                       in[i][(y + dy) * width + x + dx];
                out[o][y * width + x] = float(sum);
            }
    return out;
}

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

// The network, conv by conv.
std::vector<float> plain(const Net& net, const std::vector<float>& picture, int height, int width) {
    const int area = height * width;
    Planes image(3, std::vector<float>(area)), block_1, inner;
    for (int c = 0; c < 3; ++c)
        for (int n = 0; n < area; ++n) image[c][n] = (picture[3 * n + c] - 0.4f) * 2.0f;
    const Planes first = convolve(net.convs[0], image, height, width);
    Planes x = first;
    for (int b = 0; b < BLOCKS; ++b) {
        Planes o = x;
        for (int k = 1; k <= 3; ++k) {
            o = convolve(net.convs[3 * b + k], o, height, width);
            if (k < 3)
                for (auto& plane : o)
                    for (float& v : plane) v *= sigmoid(v);
            if (k == 1) inner = o;
        }
        for (int c = 0; c < net.channels; ++c)
            for (int n = 0; n < area; ++n) x[c][n] = (o[c][n] + x[c][n]) * (sigmoid(o[c][n]) - 0.5f);
        if (b == 0) block_1 = x;
    }
    Planes joined = first;
    for (const Planes& part : {convolve(net.convs[3 * BLOCKS + 1], x, height, width), block_1, inner})
        joined.insert(joined.end(), part.begin(), part.end());
    const Planes large =
        convolve(net.convs[3 * BLOCKS + 3], convolve(net.convs[3 * BLOCKS + 2], joined, height, width), height, width);
    const int s = net.scale;
    std::vector<float> pixels(size_t(3) * s * s * height * width);
    for (int y = 0; y < height * s; ++y)
        for (int x2 = 0; x2 < width * s; ++x2)
            for (int c = 0; c < 3; ++c) {
                const float v = large[(c * s + y % s) * s + x2 % s][(y / s) * width + x2 / s];
                pixels[3 * (size_t(y) * width * s + x2) + c] = std::min(std::max(v, 0.0f), 1.0f);
            }
    return pixels;
}

struct Part {
    int top, left, height, width;
};

// How far a part of the enlarged picture is from the one it should be, at most; or 1e9 if it cannot be run.
template <typename T>
double run(dsclora_span* span, int scale, const std::vector<float>& picture, const std::vector<float>& expected, int height,
           int width, const Part& part, int threads, int kind, float peak) {
    const int64_t rows = int64_t{part.height} * scale, columns = int64_t{part.width} * scale;
    std::vector<T> in(picture.size()), out(size_t(3) * rows * columns);  // of the exact size: the sanitizer sees a step beyond
    for (size_t n = 0; n < in.size(); ++n) in[n] = T(picture[n] * peak + (peak > 1 ? 0.5f : 0.0f));
    const ptrdiff_t size = sizeof(T);
    const dsclora_picture from{in.data(), height, width, 3 * width * size, 3 * size, size, kind};
    const dsclora_picture to{out.data(), rows, columns, ptrdiff_t(3 * columns * size), 3 * size, size, kind};
    char error[200];
    if (dsclora_run(span, &from, &to, part.top, part.left, threads, error, sizeof error)) {
        std::printf("%s\n", error);
        return 1e9;
    }
    double worst = 0;
    for (int64_t y = 0; y < rows; ++y)
        for (int64_t x = 0; x < 3 * columns; ++x) {
            const size_t at = 3 * ((y + part.top * scale) * int64_t{width} * scale + part.left * scale) + x;
            worst = std::max(worst, std::abs(double(out[y * 3 * columns + x]) / peak - expected[at]));
        }
    return worst;
}

// One random network on three random pictures; whether all are as they should be.
bool check_network(int& runs) {
    std::vector<const char*> usable;
    for (int n = 0; dsclora_kernel(n); ++n) usable.push_back(dsclora_kernel(n));
    const Net net(uniform(1, 12), uniform(1, 4));
    const char* kernel = usable[runs % usable.size()];
    char error[200];
    dsclora_span* span = net.open(kernel, error, sizeof error);
    if (!span) {
        std::printf("%s\n", error);
        return false;
    }
    bool fine = true;
    for (int n = 0; n < 3 && fine; ++n, ++runs) {
        // mostly small; sometimes wide enough for several strips or high enough for several slabs
        int height = uniform(1, 40), width = uniform(1, 60);
        if (runs % 5 == 1) width = uniform(600, 1400), height = uniform(1, 12);
        if (runs % 5 == 3) height = uniform(100, 300), width = uniform(1, 12);
        std::vector<float> picture(size_t(3) * height * width);
        for (float& v : picture) v = float(uniform(0, 255)) / 255;
        const std::vector<float> expected = plain(net, picture, height, width);
        Part part{0, 0, height, width};
        if (uniform(0, 1)) {
            part.top = uniform(0, height - 1), part.left = uniform(0, width - 1);
            part.height = uniform(1, height - part.top), part.width = uniform(1, width - part.left);
        }
        const int threads = uniform(1, 5);
        const double worst[3] = {
            run<float>(span, net.scale, picture, expected, height, width, part, threads, DSCLORA_F32, 1),
            run<uint8_t>(span, net.scale, picture, expected, height, width, part, threads, DSCLORA_U8, 255),
            run<uint16_t>(span, net.scale, picture, expected, height, width, part, threads, DSCLORA_U16, 65535),
        };
        fine = worst[0] < 1e-4 && worst[1] < 0.53 / 255 && worst[2] < 7.0 / 65535;
        if (!fine)
            std::printf("%s, %d channels, x%d, %d x %d of %d x %d from %d, %d on, %d threads: off by %g, %g, %g\n", kernel,
                        net.channels, net.scale, part.height, part.width, height, width, part.top, part.left, threads, worst[0],
                        worst[1], worst[2]);
        for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e-42f, -1e38f}) {
            picture[size_t(uniform(0, int(picture.size()) - 1))] = bad;
            run<float>(span, net.scale, picture, expected, height, width, part, threads, DSCLORA_F32, 1);
        }
    }
    dsclora_destroy(span);
    return fine;
}

// Whether wrong arguments come back as errors.
bool check_refusals() {
    char error[16];
    Net net(3, 2);
    dsclora_span* const span = net.open(nullptr, error, sizeof error);
    std::vector<uint8_t> in(3 * 4 * 5), out(3 * 8 * 10);
    const dsclora_picture from{in.data(), 4, 5, 15, 3, 1, DSCLORA_U8}, to{out.data(), 8, 10, 30, 3, 1, DSCLORA_U8};
    dsclora_picture odd = to;
    odd.height = 7;
    dsclora_picture words = to;
    words.kind = DSCLORA_U16;
    const auto refuses = [&](const dsclora_picture& target, int64_t top, int64_t left, int threads) {
        return dsclora_run(span, &from, &target, top, left, threads, error, sizeof error) == DSCLORA_WRONG_ARGUMENT;
    };
    bool fine = dsclora_run(span, &from, &to, 0, 0, 1, nullptr, 0) == DSCLORA_OK;
    fine = fine && refuses(odd, 0, 0, 1) && refuses(words, 0, 0, 1) && refuses(to, 1, 0, 1) && refuses(to, 0, -1, 1) &&
           refuses(to, INT64_MAX, 0, 1) && refuses(to, 0, 0, 0);
    dsclora_destroy(span);
    dsclora_destroy(nullptr);
    net.convs.pop_back();
    fine = fine && !net.open(nullptr, error, sizeof error) && std::string(error) == "upsampler.0.wei";  // cut to its room
    fine = fine && !Net(3, 5).open(nullptr, error, sizeof error) && !Net(3, 2).open("sse2", error, sizeof error);
    return fine && dsclora_kernel(0) && !dsclora_kernel(-1) && !dsclora_kernel(99);
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 20;
    random_bits.seed(argc > 2 ? std::atoi(argv[2]) : 0);
    if (!check_refusals()) {
        std::printf("a wrong argument was not refused\n");
        return 1;
    }
    const auto begin = std::chrono::steady_clock::now();
    int runs = 0;
    while (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds)
        if (!check_network(runs)) return 1;
    std::printf("%d pictures agree\n", runs);
}
