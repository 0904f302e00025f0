// A plain SPAN as its files hold it, and as it is run: what is linear between two of its convs folded into one.
#pragma once

#include <vector>

#include "dsclora.h"

namespace dsclora {

constexpr int BLOCKS = 6;              // SPABs; buffers and threads are laid out for so many
constexpr int JOINT = 3 * BLOCKS + 1;  // number of the conv that joins four depths; the last is one later
constexpr int CONVS = JOINT + 2;

// A conv as PyTorch lays it out: weight (outputs, inputs, size, size), bias (outputs,) or none.
struct Layer {
    int outputs = 0, inputs = 0, size = 3;
    std::vector<float> weight, bias;
};

// The network's convs:
//   convs[0]          conv_1
//   convs[1..18]      the blocks' convs
//   convs[JOINT]      conv_cat of conv_2, and of conv_1: inputs are block 6's output and then the picture
//   convs[JOINT + 1]  the pixel shuffle's conv
//   pointwise         conv_cat's share of block 1's output and of block 6's first activation: 1x1, no bias
struct FoldedSpan {
    std::vector<Layer> convs;
    Layer pointwise;
};

// `conv_cat` is linear in each of its four inputs, and two of them, `conv_1` and `conv_2`, are 3x3 convs with nothing
// non-linear behind: each becomes, with its part of `conv_cat`, a 3x3 conv. Zero padding is on their inputs: it stays. Sums are
// in double.
//
// Throws std::invalid_argument where a tensor is missing, unknown, given twice, or of another shape than such a SPAN has.
FoldedSpan fold(const dsclora_tensor* tensors, int count, int channels, int scale);

}  // namespace dsclora
