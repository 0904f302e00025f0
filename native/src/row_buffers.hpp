// A picture runs through all convs together, a few rows and columns at a time, so that what a conv reads was written a moment
// ago and is still in the cache, and memory does not grow with the picture's height.
//
// Rows: conv k makes ring k + 1 from ring k (ring 0 is the picture). A band is 8 or 16 rows of the picture, and in every ring
// the rows that can be computed from them, which lag one row more from ring to ring: so much a kernel looks ahead. Later bands
// still need the last rows of a band: those are kept. The others live in one of four buffers that all rings share, in turn.
//
// Columns: a strip is a part of the tiles in a row. It is computed a few tiles further than it reaches, for what kernels see
// to the right; what they see to the left comes in a margin from the strip before.
//
// A slab is SLAB bands: a strip goes down a slab before the next one begins, so that its kept rows stay in the cache too.
//
// A step is a strip of a band, and goes through the convs in groups. A group runs the steps in order, and a step needs the
// group before to be done with it. So threads follow each other down the network, each taking whatever step is ready.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "fold.hpp"

namespace dsclora {

constexpr int BLOCK_1 = 4;             // ring of block 1's output
constexpr int INNER = 3 * BLOCKS - 1;  // ring of block 6's first activation

constexpr int MOST_BAND_ROWS = 16;  // of a band
constexpr int SLAB = 16;       // bands
constexpr int STRIP = 96;      // tiles that are computed together where a row is cut; a multiple of any kernel's lanes
constexpr int ALONE = 164;     // up to so many tiles a row is one strip: that costs less than overlapping ones
constexpr int OVERLAP = 5;     // tiles of them that belong to the next strip: 20 pixels, what is seen from conv_1's output on

// Rows of one conv's output (or of the picture): the kept ones, by strip, band and row.
struct Ring {
    float* data = nullptr;
    float* margin = nullptr;  // (rows of a slab, channels): the last column of the strip before
    int channels = 0;
    int behind = 0;  // rows before a band that are still needed with it
    int kept = 0;    // rows of a band from here on are kept
    int slots = 0;   // bands whose kept rows exist at a time
};

// The memory of a run, and where everything is in it: depends on a picture's width and the number of threads.
struct RowBuffers {
    const int before, width, threads;
    const int tiles, strips;
    const int band_rows;          // 16 need fewer passes over the weights, 8 less memory and give threads more steps to share
    const int groups;             // of convs that are run together
    const int ahead;              // steps under way besides the oldest
    int bands = 0;                // of the picture that is being run
    ptrdiff_t pitch;              // of rows, in floats
    Ring rings[CONVS];            // [0] the picture, [k + 1] the output of conv k
    std::vector<float*> scratch;  // of each thread
    std::vector<int32_t> inside;  // (4, inside_pitch): `Call::inside`
    ptrdiff_t inside_pitch;

    // `before` columns of the first tile lie left of the picture, which is `width` wide; `scratch_size` of a thread, in floats.
    RowBuffers(int before, int width, int threads, int channels, size_t scratch_size);

    int start(int strip) const { return strip * (STRIP - OVERLAP); }
    int end(int strip) const { return strip == strips - 1 ? tiles : start(strip) + STRIP; }
    int group_of(int conv) const;

    // The steps' order: down a slab, then the next strip, then the next slab.
    int64_t step_of(int strip, int band) const;
    void place_of(int64_t step, int& strip, int& band) const;

    // Before a step begins; those from `oldest` on are under way.
    void take_slots(int64_t step, int64_t oldest);

    // Row y of a ring, as far as this strip sees it: add a tile's number in the picture to get there. The row has been read or
    // computed, or is being computed now.
    float* row(int ring, int strip, int y);
    float* zero(int strip) const { return zeros_ + LEFT - start(strip); }  // a row outside of the picture
    float* margin(int ring, int band) const;

private:
    static constexpr int LEFT = 16;    // floats of a row before its strip
    static constexpr int RECENT = 64;  // bands and steps whose place is remembered

    // Whether more than the band before is still needed of a ring.
    bool many(const Ring& ring) const { return ring.behind > band_rows; }
    int8_t& slot(bool many, int strip, int band) { return slots_[many][size_t(strip) * RECENT + band % RECENT]; }

    // Which slot of a ring holds a band of a strip, [0] in rings that keep few bands, [1] in others; and which set of buffers a
    // step uses. The lowest free one is taken, not the next in turn: it may still be in the cache.
    std::vector<int8_t> slots_[2];
    int8_t sets_[RECENT] = {};
    int most_behind_;  // bands
    float *buffers_, *zeros_;
    size_t row_size_;
    struct Free {
        void operator()(float* p) const { std::free(p); }
    };
    std::unique_ptr<float, Free> memory_;
};

}  // namespace dsclora
