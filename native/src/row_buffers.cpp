#include "row_buffers.hpp"

#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace dsclora {
namespace {

constexpr int BUFFERS = 4;  // an attention reads the ring three before its own

// How many rows before a band are needed with it.
int rows_behind(int ring) {
    if (ring == 0) return JOINT + 2;               // the picture, by the joint conv
    if (ring == BLOCK_1) return JOINT + 1 - ring;  // by the joint conv, pointwise
    if (ring == INNER) return JOINT + 1 - ring;
    if (ring % 3 == 1) return 3;  // a block's input, by its attention
    return 2;                     // by the next conv: a row of lag, and one above
}

int strips_of(int tiles) { return tiles <= ALONE ? 1 : (tiles - OVERLAP + STRIP - OVERLAP - 1) / (STRIP - OVERLAP); }

}  // namespace

// Few threads take a block at a time, whose rows stay in their core's cache; many take single convs.
int RowBuffers::group_of(int conv) const {
    if (threads == 1) return 0;
    if (threads > 3) return conv;
    return conv == 0 ? 0 : std::min((conv - 1) / 3, BLOCKS);
}

RowBuffers::RowBuffers(int b, int w, int t, int channels, size_t scratch_size)
    : before(b),
      width(w),
      threads(t),
      tiles((b + w + 3) / 4),
      strips(strips_of(tiles)),
      band_rows(t == 1 ? MOST_BAND_ROWS : 8),
      groups(group_of(CONVS - 1) + 1),
      ahead(t == 1 ? 0 : std::min(2 * t, CONVS)),
      most_behind_((rows_behind(0) + band_rows - 1) / band_rows) {
    pitch = (LEFT + (strips == 1 ? tiles : STRIP) + 32) / 16 * 16;  // a vector may reach beyond the last tile, and one further
    if (pitch / 16 % 2 == 0) pitch += 16;                           // rows must not all fall into the same lines of the cache
    row_size_ = 4 * std::max(channels, 3) * pitch;

    constexpr size_t GAP = 64;  // floats between the parts, which nothing may touch
    struct Part {
        size_t at, size;
    };
    size_t floats = GAP;
    std::vector<Part> parts;
    const auto reserve = [&](size_t size) {
        const size_t at = floats;
        parts.push_back({at, size});
        floats += (size + 15) / 16 * 16 + GAP;
        return at;
    };
    size_t data[CONVS], margins[CONVS];
    for (int r = 0; r < CONVS; ++r) {
        Ring& ring = rings[r];
        ring.channels = r ? channels : 3;
        ring.behind = rows_behind(r);
        ring.kept = std::max(0, band_rows - ring.behind);
        ring.slots = 1 + ahead + (many(ring) ? most_behind_ : 1);
        data[r] = reserve(size_t(strips) * ring.slots * (band_rows - ring.kept) * 4 * ring.channels * pitch);
        margins[r] = reserve(strips == 1 ? 0 : size_t(SLAB * band_rows) * ring.channels);
    }
    const size_t buffers = reserve(size_t(ahead + 1) * BUFFERS * band_rows * row_size_), zeros = reserve(row_size_);
    std::vector<size_t> scratches;
    for (int n = 0; n < threads; ++n) scratches.push_back(reserve(scratch_size));

    // in large pages where the system has them: the rings are walked through again and again
    constexpr size_t LARGE_PAGE = size_t{2} << 20;
    const size_t bytes = (floats * sizeof(float) + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    float* const base = static_cast<float*>(std::aligned_alloc(LARGE_PAGE, bytes));
    if (!base) throw std::bad_alloc();
    memory_.reset(base);
#if defined(__linux__)
    madvise(base, bytes, MADV_HUGEPAGE);
#endif
    std::fill_n(base, floats, 0.0f);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(base, bytes);
    for (const Part& part : parts) ASAN_UNPOISON_MEMORY_REGION(base + part.at, part.size * sizeof(float));
#endif

    for (int r = 0; r < CONVS; ++r) rings[r].data = base + data[r], rings[r].margin = base + margins[r];
    buffers_ = base + buffers;
    zeros_ = base + zeros;
    for (size_t at : scratches) scratch.push_back(base + at);
    for (auto& kind : slots_) kind.assign(size_t(strips) * RECENT, 0);
    inside_pitch = tiles + 32;
    inside.assign(4 * inside_pitch, 0);
    for (int x = before; x < before + width; ++x) inside[(x % 4) * inside_pitch + x / 4] = -1;
}

int64_t RowBuffers::step_of(int strip, int band) const {
    const int first = band / SLAB * SLAB;
    return int64_t{first} * strips + int64_t{strip} * std::min(SLAB, bands - first) + band - first;
}

void RowBuffers::place_of(int64_t step, int& strip, int& band) const {
    const int first = static_cast<int>(step / strips) / SLAB * SLAB, length = std::min(SLAB, bands - first);
    const int rest = static_cast<int>(step - int64_t{first} * strips);
    strip = rest / length, band = first + rest % length;
}

void RowBuffers::take_slots(int64_t step, int64_t oldest) {
    const auto lowest_free = [](uint64_t taken) {
        int8_t n = 0;
        while (taken >> n & 1) ++n;
        return n;
    };
    int strip, band;
    place_of(step, strip, band);
    uint64_t taken = 0;
    int oldest_band = band;
    for (int64_t s = step - 1; s >= oldest; --s) {
        taken |= uint64_t{1} << sets_[s % RECENT];
        int other_strip, other_band;
        place_of(s, other_strip, other_band);
        if (other_strip == strip) oldest_band = other_band;
    }
    sets_[step % RECENT] = lowest_free(taken);
    for (bool many : {false, true}) {  // the strip's bands that are under way, and those that they need
        taken = 0;
        for (int b = std::max(0, oldest_band - (many ? most_behind_ : 1)); b < band; ++b)
            taken |= uint64_t{1} << slot(many, strip, b);
        slot(many, strip, band) = lowest_free(taken);
    }
}

float* RowBuffers::row(int r, int strip, int y) {
    const Ring& ring = rings[r];
    const int from_start = y + r, band = from_start / band_rows, n = from_start % band_rows;
    float* row;
    if (n >= ring.kept)
        row = ring.data +
              ((int64_t{strip} * ring.slots + slot(many(ring), strip, band)) * (band_rows - ring.kept) + n - ring.kept) *
                  (4 * ring.channels * pitch);
    else
        row = buffers_ + ((size_t(sets_[step_of(strip, band) % RECENT]) * BUFFERS + r % BUFFERS) * band_rows + n) * row_size_;
    return row + LEFT - start(strip);
}

float* RowBuffers::margin(int r, int band) const {
    return rings[r].margin + size_t(band % SLAB) * band_rows * rings[r].channels;
}

}  // namespace dsclora
