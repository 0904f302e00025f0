// What the instruction sets have in common: the calls that a network is made of, and the layout of what they pass.
//
// A row of activations is (channels, 4, pitch) floats: pixel x of channel c lies at [c][x % 4][x / 4]. So the lanes of a
// vector are tiles of 4 x 4 outputs, side by side, and Winograd's transforms need no shuffles. What lies left of a row's
// first pixel and right of its last is zero, as the network pads it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dsclora {

// A 3x3 conv in Winograd's F(4x4, 3x3): `weights` is (36, blocks, inputs, outputs of the block), for blocks as even as they
// go with no more than `Kernel::block` outputs each. A 1x1 conv has 1 in place of 36.
struct Conv {
    int inputs = 0, outputs = 0;
    const float* weights = nullptr;
    const float* bias = nullptr;  // (outputs,)
};

// What becomes of a conv's sums.
enum class Finish {
    linear,  // stored
    silu,    // stored as x * sigmoid(x)
    attend,  // stored as (x + residual) * (sigmoid(x) - 1/2)
    join,    // stored with the sums of a 1x1 conv of two more pictures added
    pixels   // a pixel shuffle away from being the picture
};

enum class Pixel { u8, u16, f32 };

// A picture in or out, RGB: `data` is its first sample; strides in bytes. Floats are in 0..1.
struct Picture {
    void* data = nullptr;
    Pixel kind = Pixel::u8;
    int height = 0, width = 0;
    ptrdiff_t row = 0, column = 0, band = 0;
};

// One row of tiles, four rows of pixels from `y` on. Every pointer is to tile 0 of the picture, though few of its tiles may be
// in memory.
struct TileRow {
    int y = 0;
    // Two pictures side by side in the channels; rows y - 1 .. y + 4; rows outside of the picture are rows of zeros.
    const float* rows[2][6] = {};
    float* out[4] = {};              // null where a row is not needed or outside of the picture
    const float* residual[4] = {};   // for `attend`
    const float* points[2][4] = {};  // for `join`
};

// Rows of tiles of one conv.
struct Call {
    Conv conv;
    const TileRow* tile_rows = nullptr;
    int count = 0;  // of them
    int channels[2] = {};
    Finish finish = Finish::linear;
    Conv pointwise;  // for `join`
    ptrdiff_t pitch = 0;
    int first = 0, last = 0;          // tiles [first, last); the lanes beyond, up to a whole vector, are not used
    const int32_t* inside = nullptr;  // (4, inside_pitch): -1 where a pixel lies in the picture, else 0
    ptrdiff_t inside_pitch = 0;
    // for `pixels`
    const Picture* picture = nullptr;
    int top = 0, left = 0;      // the LR pixel that the picture begins with; `left` is a multiple of 4
    int bottom = 0, right = 0;  // LR pixels from here on belong to others
    int scale = 0;
    float* scratch = nullptr;  // `Kernel::scratch` floats
};

struct Kernel {
    const char* name;
    int block;
    bool (*runs_here)();
    size_t (*scratch)(int inputs, int outputs);  // floats, aligned to 64 bytes
    void (*conv)(const Call&);
};

extern const Kernel avx512, avx2, neon;

}  // namespace dsclora
