// The native network against a plain one, over pictures of random sizes: what the sanitizers are run on.
//   check [seconds] [seed]
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "src/network.hpp"

using namespace dsclora;

namespace {

std::mt19937 random_bits;

int uniform(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_bits); }

struct Net {
    int channels, scale;
    std::vector<std::vector<float>> weights, biases;  // body, joint, last, pointwise
    std::vector<Weights> all;

    Net(int c, int s) : channels(c), scale(s) {
        for (int k = 0; k < CONVS; ++k) add(k == CONVS - 1 ? 3 * s * s : c, k == 0 ? 3 : k == JOINT ? c + 3 : c, 3);
        add(c, 2 * c, 1);
        for (size_t n = 0; n < weights.size(); ++n) all[n].weight = weights[n].data(), all[n].bias = biases[n].data();
        all.back().bias = nullptr;
    }
    void add(int outputs, int inputs, int size) {
        std::normal_distribution<float> normal(0, 1.2f / std::sqrt(float(inputs * size * size)));
        std::vector<float> w(size_t(outputs) * inputs * size * size), b(outputs);
        for (float& x : w) x = normal(random_bits);
        for (float& x : b) x = 0.3f + 0.1f * normal(random_bits);
        weights.push_back(w), biases.push_back(b);
        all.push_back({outputs, inputs, size, nullptr, nullptr});
    }
};

using Planes = std::vector<std::vector<float>>;  // [channel][y * width + x]

void convolve(const Weights& w, const Planes& in, int first, int height, int width, Planes& out) {
    const int reach = w.size / 2;
    for (int o = 0; o < w.outputs; ++o)
        for (int y = 0; y < height; ++y)
            for (int x = 0; x < width; ++x) {
                double sum = w.bias ? w.bias[o] : 0;
                for (int i = 0; i < w.inputs; ++i)
                    for (int dy = -reach; dy <= reach; ++dy)
                        for (int dx = -reach; dx <= reach; ++dx)
                            if (y + dy >= 0 && y + dy < height && x + dx >= 0 && x + dx < width)
                                sum += double(w.weight[((o * w.inputs + i) * w.size + dy + reach) * w.size + dx + reach]) *
                                       in[first + i][(y + dy) * width + x + dx];
                out[o][y * width + x] += float(sum);
            }
}

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

std::vector<float> plain(const Net& net, const std::vector<float>& picture, int height, int width) {
    const auto empty = [&](int channels) { return Planes(channels, std::vector<float>(size_t(height) * width)); };
    Planes image = empty(3);
    for (int c = 0; c < 3; ++c)
        for (int n = 0; n < height * width; ++n) image[c][n] = (picture[3 * n + c] - 0.4f) * 2.0f;
    Planes x = empty(net.channels), block_1, inner;
    convolve(net.all[0], image, 0, height, width, x);
    for (int b = 0; b < BLOCKS; ++b) {
        Planes o = x;
        for (int k = 1; k <= 3; ++k) {
            Planes next = empty(net.channels);
            convolve(net.all[3 * b + k], o, 0, height, width, next);
            if (k < 3)
                for (auto& plane : next)
                    for (float& v : plane) v *= sigmoid(v);
            if (k == 1) inner = next;
            o = next;
        }
        for (int c = 0; c < net.channels; ++c)
            for (int n = 0; n < height * width; ++n) x[c][n] = (o[c][n] + x[c][n]) * (sigmoid(o[c][n]) - 0.5f);
        if (b == 0) block_1 = x;
    }
    Planes joined = empty(net.channels), large = empty(3 * net.scale * net.scale);
    x.insert(x.end(), image.begin(), image.end());
    convolve(net.all[JOINT], x, 0, height, width, joined);
    block_1.insert(block_1.end(), inner.begin(), inner.end());
    convolve(net.all[CONVS], block_1, 0, height, width, joined);
    convolve(net.all[CONVS - 1], joined, 0, height, width, large);
    const int s = net.scale;
    std::vector<float> made(size_t(3) * s * s * height * width);
    for (int y = 0; y < height * s; ++y)
        for (int x2 = 0; x2 < width * s; ++x2)
            for (int c = 0; c < 3; ++c) {
                const float v = large[(c * s + y % s) * s + x2 % s][(y / s) * width + x2 / s];
                made[3 * (size_t(y) * width * s + x2) + c] = std::min(std::max(v, 0.0f), 1.0f);
            }
    return made;
}

template <typename T>
double run(Network& network, const Net& net, const std::vector<float>& picture, const std::vector<float>& wanted, int height,
           int width, int threads, Pixel kind, float peak) {
    std::vector<T> in(picture.size()), out(wanted.size());  // of the exact size: the sanitizer sees a step beyond
    for (size_t n = 0; n < in.size(); ++n) in[n] = T(picture[n] * peak + (peak > 1 ? 0.5f : 0.0f));
    const ptrdiff_t size = sizeof(T);
    const Picture from{in.data(), kind, height, width, 3 * width * size, 3 * size, size};
    const Picture to{out.data(), kind, height * net.scale, width * net.scale, 3 * width * net.scale * size, 3 * size, size};
    network.run(from, to, threads);
    double worst = 0;
    for (size_t n = 0; n < out.size(); ++n) worst = std::max(worst, std::abs(double(out[n]) / peak - wanted[n]));
    return worst;
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 20;
    random_bits.seed(argc > 2 ? std::atoi(argv[2]) : 0);
    const std::vector<const Kernel*> usable = kernels();
    const float mean[3] = {0.4f, 0.4f, 0.4f};
    const auto begin = std::chrono::steady_clock::now();
    int runs = 0;
    while (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds) {
        const Net net(uniform(1, 12), uniform(1, 4));
        const Kernel& kernel = *usable[runs % usable.size()];
        Network network(kernel, {net.all.begin(), net.all.begin() + JOINT}, net.all[JOINT], net.all[CONVS], net.all[CONVS - 1],
                        net.scale, mean, 2.0f);
        for (int n = 0; n < 3; ++n, ++runs) {
            // mostly small; sometimes wide enough for several strips or high enough for several panels
            int height = uniform(1, 40), width = uniform(1, 60);
            if (runs % 5 == 1) width = uniform(600, 1400), height = uniform(1, 12);
            if (runs % 5 == 3) height = uniform(100, 300), width = uniform(1, 12);
            std::vector<float> picture(size_t(3) * height * width);
            for (float& v : picture) v = float(uniform(0, 255)) / 255;
            const std::vector<float> wanted = plain(net, picture, height, width);
            const int threads = uniform(1, 5);
            const double worst[3] = {
                run<float>(network, net, picture, wanted, height, width, threads, Pixel::f32, 1),
                run<uint8_t>(network, net, picture, wanted, height, width, threads, Pixel::u8, 255),
                run<uint16_t>(network, net, picture, wanted, height, width, threads, Pixel::u16, 65535),
            };
            if (!(worst[0] < 1e-4 && worst[1] < 0.53 / 255 && worst[2] < 7.0 / 65535)) {
                std::printf("%s, %d channels, x%d, %d x %d, %d threads: off by %g, %g, %g\n", kernel.name, net.channels,
                            net.scale, height, width, threads, worst[0], worst[1], worst[2]);
                return 1;
            }
            for (float bad :
                 {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e-42f, -1e38f}) {
                picture[size_t(uniform(0, int(picture.size()) - 1))] = bad;
                run<float>(network, net, picture, wanted, height, width, threads, Pixel::f32, 1);
            }
        }
    }
    std::printf("%d pictures agree\n", runs);
}
