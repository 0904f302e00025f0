// A plain SPAN, packed for a kernel, and the run of a picture through it.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "crew.hpp"
#include "frame.hpp"
#include "kernel.hpp"

namespace dsclora {

// Weights as PyTorch lays them out, (outputs, inputs, 3, 3) or (outputs, inputs), and biases (outputs,).
struct Weights {
    int outputs = 0, inputs = 0, size = 3;
    const float* weight = nullptr;
    const float* bias = nullptr;
};

// Those built in that this processor has, the best first.
std::vector<const Kernel*> kernels();

// The network as it is run, its linear parts folded:
//   body[0]        conv_1
//   body[1..18]    the blocks' convs
//   joint          conv_cat of conv_2, and of conv_1: 3x3, inputs are block 6's output and then the picture
//   pointwise      conv_cat's share of block 1's output and of block 6's first activation: 1x1
//   last           the pixel shuffle's conv
class Network {
public:
    Network(const Kernel& kernel, const std::vector<Weights>& body, const Weights& joint, const Weights& pointwise,
            const Weights& last, int scale, const float mean[3], float range);

    // Enlarges `from` into `to`, which is `scale` times as large. Calls wait for each other.
    void run(const Picture& from, const Picture& to, int threads);

    const int scale;
    const Kernel& kernel;

private:
    struct Packed {
        Conv conv;
        std::vector<float> weights, bias;
    };

    void pack(Packed& to, const Weights& from) const;

    std::vector<Packed> convs_;  // body, joint, last
    Packed pointwise_;
    float mean_[3], range_;
    int channels_;
    std::mutex running_;
    std::unique_ptr<Frame> frame_;
    std::unique_ptr<Crew> crew_;
};

}  // namespace dsclora
