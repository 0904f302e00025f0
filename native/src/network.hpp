// A plain SPAN, packed for a kernel, and the run of a picture through it.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "fold.hpp"
#include "kernel.hpp"
#include "pipeline.hpp"
#include "row_buffers.hpp"

namespace dsclora {

// Those built in that this processor has, the best first.
std::vector<const Kernel*> kernels();

class Network {
public:
    Network(const Kernel& kernel, const FoldedSpan& folded, int scale, const float mean[3], float range);

    // Enlarges the part of `from` that begins at pixel (top, left) into `to`, which is `scale` times as large as that part.
    // Calls wait for each other.
    void run(const Picture& from, const Picture& to, int top, int left, int threads);

    const Kernel& kernel;
    const int scale;

private:
    struct Packed {
        Conv conv;
        std::vector<float> weights, bias;
    };
    struct Pass;

    void pack(Packed& to, const Layer& from) const;
    RowBuffers& buffers_for(int before, int width, int threads);

    std::vector<Packed> convs_;
    Packed pointwise_;
    float mean_[3], range_;
    int channels_;
    std::mutex running_;
    std::unique_ptr<RowBuffers> buffers_;
    std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace dsclora
