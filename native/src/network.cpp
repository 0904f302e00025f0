// Weights into the kernel's order, and a picture through all convs.
#include "network.hpp"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dsclora {
namespace {

// Denormals would cost a hundred times the time and no eye sees them.
class NoDenormals {
public:
#if defined(__x86_64__)
    NoDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~NoDenormals() { _mm_setcsr(before_); }

private:
    unsigned before_;
#elif defined(__aarch64__)
    NoDenormals() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" ::"r"(before_ | (uint64_t{1} << 24)));
    }
    ~NoDenormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

private:
    uint64_t before_;
#endif
};

}  // namespace

std::vector<const Kernel*> kernels() {
    std::vector<const Kernel*> found;
#if defined(DSCLORA_AVX512)
    if (avx512.runs_here()) found.push_back(&avx512);
#endif
#if defined(DSCLORA_AVX2)
    if (avx2.runs_here()) found.push_back(&avx2);
#endif
#if defined(DSCLORA_NEON)
    found.push_back(&neon);
#endif
    return found;
}

Network::Network(const Kernel& k, const FoldedSpan& folded, int s, const float mean[3], float range)
    : kernel(k), scale(s), convs_(CONVS), range_(range), channels_(folded.convs[0].outputs) {
    for (int n = 0; n < CONVS; ++n) pack(convs_[n], folded.convs[n]);
    pack(pointwise_, folded.pointwise);
    std::copy(mean, mean + 3, mean_);
}

void Network::pack(Packed& to, const Layer& from) const {
    // G of F(4, 3): weights to Winograd's domain are G g G^T
    static const double g[6][3] = {{1 / 4., 0, 0},
                                   {-1 / 6., -1 / 6., -1 / 6.},
                                   {-1 / 6., 1 / 6., -1 / 6.},
                                   {1 / 24., 1 / 12., 1 / 6.},
                                   {1 / 24., -1 / 12., 1 / 6.},
                                   {0, 0, 1}};
    const int blocks = (from.outputs + kernel.block - 1) / kernel.block;
    const int small = from.outputs / blocks, more = from.outputs % blocks;
    const int parts = from.size == 1 ? 2 : 1;  // a 1x1 conv's inputs come from two pictures
    const int inputs = from.inputs / parts;
    to.weights.reserve(static_cast<size_t>(from.size == 1 ? 1 : 36) * from.outputs * from.inputs);
    for (int position = 0; position < (from.size == 1 ? 1 : 36); ++position)
        for (int part = 0; part < parts; ++part)
            for (int b = 0, first = 0; b < blocks; first += small + (b < more), ++b)
                for (int i = part * inputs; i < (part + 1) * inputs; ++i)
                    for (int o = first; o < first + small + (b < more); ++o) {
                        const float* w =
                            from.weight.data() + (static_cast<size_t>(o) * from.inputs + i) * from.size * from.size;
                        double sum = w[0];
                        if (from.size == 3) {
                            sum = 0;
                            for (int y = 0; y < 3; ++y)
                                for (int x = 0; x < 3; ++x) sum += g[position / 6][y] * w[3 * y + x] * g[position % 6][x];
                        }
                        to.weights.push_back(static_cast<float>(sum));
                    }
    to.bias = from.bias;
    to.conv = {from.inputs, from.outputs, to.weights.data(), to.bias.data()};
}

namespace {

// Columns [first, last) of a picture's row; column x goes to x + before.
template <typename T>
void read_row(const Picture& from, int y, int first, int last, const float mean[3], float range, float peak, float* to,
              ptrdiff_t pitch, int before) {
    for (int c = 0; c < 3; ++c) {
        const char* p = static_cast<const char*>(from.data) + y * from.row + first * from.column + c * from.band;
        const float factor = range / peak, offset = -mean[c] * range;
        for (int x = first + before; x < last + before; ++x, p += from.column) {
            T sample;
            std::memcpy(&sample, p, sizeof(T));
            to[(4 * c + x % 4) * pitch + x / 4] = static_cast<float>(sample) * factor + offset;
        }
    }
}

// The rows of every ring that the wanted ones depend on, or its tiles: [first[r], last[r]). A ring needs all that a tile of the
// next one reads, which makes the wanted pixels those of a run of the whole picture to the bit.
struct Needed {
    int first[CONVS + 1], last[CONVS + 1];
};

// Rows: those of ring r come in tiles of four that begin at 4 n - r. A tile reads one row before it and one behind.
Needed needed_rows(int top, int bottom, int height) {
    const int phase = CONVS % 4, begin = (top + phase) / 4 * 4 - phase, end = (bottom + phase + 3) / 4 * 4 - phase;
    Needed rows;
    for (int r = 0; r <= CONVS; ++r) {
        rows.first[r] = std::max(begin - 3 * (CONVS - r), 0);
        rows.last[r] = std::min(end + CONVS - r, height);
    }
    return rows;
}

Needed needed_tiles(int left, int right, int tiles) {
    Needed needed;
    for (int r = 0; r <= CONVS; ++r) {
        needed.first[r] = std::max(left / 4 - (CONVS - r), 0);
        needed.last[r] = std::min((right + 3) / 4 + CONVS - r, tiles);
    }
    return needed;
}

}  // namespace

// One run. Columns are counted from the first tile's on, `RowBuffers::before` of which lie left of the picture.
struct Network::Pass {
    const Network& network;
    const Picture &from, &to;
    RowBuffers& buffers;
    const int top, left, height;  // of the part; of the source
    const Needed rows, tiles;

    Pass(const Network& n, const Picture& source, const Picture& target, RowBuffers& b, int y, int x)
        : network(n),
          from(source),
          to(target),
          buffers(b),
          top(y),
          left(b.before + x),
          height(source.height),
          rows(needed_rows(y, bottom(), height)),
          tiles(needed_tiles(left, right(), b.tiles)) {
        buffers.bands = (rows.last[CONVS] + CONVS + buffers.band_rows - 1) / buffers.band_rows;
    }

    int bottom() const { return top + to.height / network.scale; }
    int right() const { return left + to.width / network.scale; }

    // Calls `work(y)` for the rows that one step adds to a ring.
    template <typename Work>
    void for_rows(int ring, int band, Work work) const {
        const int stop = std::min(buffers.band_rows * (band + 1) - ring, rows.last[ring]);
        for (int y = std::max(buffers.band_rows * band - ring, rows.first[ring]); y < stop; ++y) work(y);
    }

    // Before a ring's rows are computed: the column to the left is the one of the strip before, or zero; and zero is the column
    // to the right of the last strip. Afterwards the last column that is this strip's own is put aside for the next.
    void begin(int r, int band, int strip) const {
        if (buffers.strips == 1) return;
        const float* margin = buffers.margin(r, band);
        for_rows(r, band, [&](int y) {
            float* row = buffers.row(r, strip, y);
            for (int c = 0; c < buffers.rings[r].channels; ++c, row += 4 * buffers.pitch, ++margin) {
                row[3 * buffers.pitch + buffers.start(strip) - 1] = strip ? *margin : 0.0f;
                if (strip == buffers.strips - 1) row[buffers.tiles] = 0.0f;
            }
        });
    }
    void finish(int r, int band, int strip) const {
        if (strip == buffers.strips - 1) return;
        float* margin = buffers.margin(r, band);
        for_rows(r, band, [&](int y) {
            const float* row = buffers.row(r, strip, y) + 3 * buffers.pitch + buffers.start(strip + 1) - 1;
            for (int c = 0; c < buffers.rings[r].channels; ++c, row += 4 * buffers.pitch) *margin++ = *row;
        });
    }

    void read(int band, int strip) const {
        begin(0, band, strip);
        for_rows(0, band, [&](int y) {
            float* row = buffers.row(0, strip, y);
            const int before = buffers.before, first = std::max(4 * buffers.start(strip) - before, 0),
                      last = std::min(4 * buffers.end(strip) + 1 - before, from.width);
            const float *mean = network.mean_, range = network.range_;
            const ptrdiff_t pitch = buffers.pitch;
            if (from.kind == Pixel::u8) read_row<uint8_t>(from, y, first, last, mean, range, 255.0f, row, pitch, before);
            if (from.kind == Pixel::u16) read_row<uint16_t>(from, y, first, last, mean, range, 65535.0f, row, pitch, before);
            if (from.kind == Pixel::f32) read_row<float>(from, y, first, last, mean, range, 1.0f, row, pitch, before);
        });
        finish(0, band, strip);
    }

    // A row of a ring, or of zeros outside of the picture.
    const float* row(int ring, int strip, int y) const {
        return y < 0 || y >= height ? buffers.zero(strip) : buffers.row(ring, strip, y);
    }

    TileRow tile_row(int k, int strip, int y) const {
        TileRow tile_row;
        tile_row.y = y;
        for (int i = 0; i < 6; ++i) {
            tile_row.rows[0][i] = row(k, strip, y - 1 + i);
            if (k == JOINT) tile_row.rows[1][i] = row(0, strip, y - 1 + i);
        }
        for (int a = 0; a < 4; ++a) {
            const bool inside = y + a >= 0 && y + a < height;
            if (inside && k + 1 < CONVS) tile_row.out[a] = buffers.row(k + 1, strip, y + a);
            if (finish_of(k) == Finish::attend) tile_row.residual[a] = row(k - 2, strip, y + a);
            if (k == JOINT) {
                tile_row.points[0][a] = row(BLOCK_1, strip, y + a);
                tile_row.points[1][a] = row(INNER, strip, y + a);
            }
        }
        return tile_row;
    }

    static Finish finish_of(int k) {
        if (k == 0) return Finish::linear;
        if (k == JOINT) return Finish::join;
        if (k == JOINT + 1) return Finish::pixels;
        return k % 3 ? Finish::silu : Finish::attend;
    }

    void convolve(int k, int band, int strip, float* scratch) const {
        const int ring = k + 1;
        TileRow tile_rows[MOST_BAND_ROWS / 4];
        Call call;
        call.conv = network.convs_[k].conv;
        call.tile_rows = tile_rows;
        call.pitch = buffers.pitch;
        // begun later, the whole vectors of a strip among others would reach beyond its end, where zeros have to stay
        const bool crop = buffers.strips == 1 || ring == CONVS;
        call.first = crop ? std::max(buffers.start(strip), tiles.first[ring]) : buffers.start(strip);
        call.last = std::min(buffers.end(strip), tiles.last[ring]);
        call.inside = buffers.inside.data(), call.inside_pitch = buffers.inside_pitch;
        call.picture = &to;
        call.scale = network.scale;
        call.top = top, call.bottom = bottom(), call.left = left;
        call.right = strip == buffers.strips - 1 ? right() : std::min(right(), 4 * buffers.start(strip + 1));
        call.scratch = scratch;
        call.channels[0] = buffers.rings[k].channels;
        call.finish = finish_of(k);
        if (k == JOINT) call.channels[1] = 3, call.pointwise = network.pointwise_.conv;
        if (ring < CONVS) begin(ring, band, strip);
        const int first = buffers.band_rows * band - ring, stop = std::min(first + buffers.band_rows, rows.last[ring]);
        for (int y = first; y < stop; y += 4)
            if (y + 4 > rows.first[ring]) tile_rows[call.count++] = tile_row(k, strip, y);
        if (call.count && call.first < call.last && tiles.first[ring] < buffers.end(strip)) network.kernel.conv(call);
        if (ring < CONVS) finish(ring, band, strip);
    }

    void step(int group, int64_t step, int64_t oldest, float* scratch) const {
        int strip, band;
        buffers.place_of(step, strip, band);
        if (group == 0) {
            buffers.take_slots(step, oldest);
            read(band, strip);
        }
        for (int k = 0; k < CONVS; ++k)
            if (buffers.group_of(k) == group) convolve(k, band, strip, scratch);
    }
};

RowBuffers& Network::buffers_for(int before, int width, int threads) {
    const bool fit = buffers_ && buffers_->before == before && buffers_->width == width && buffers_->threads == threads;
    if (!fit) {
        buffers_.reset();  // before the next ones take their memory
        const int outputs = std::max(convs_[JOINT + 1].conv.outputs, channels_);
        buffers_ = std::make_unique<RowBuffers>(before, width, threads, channels_, kernel.scratch(channels_ + 3, outputs));
    }
    return *buffers_;
}

void Network::run(const Picture& from, const Picture& to, int top, int left, int threads) {
    std::lock_guard<std::mutex> one_at_a_time(running_);
    RowBuffers& buffers = buffers_for(-left & 3, from.width, threads);  // the part begins with a tile
    if (!pipeline_ || pipeline_->threads != threads) pipeline_ = std::make_unique<Pipeline>(threads);
    const Pass pass(*this, from, to, buffers, top, left);
    pipeline_->run(buffers.groups, int64_t{buffers.bands} * buffers.strips, buffers.ahead,
                   [&](int group, int64_t step, int64_t oldest, int thread) {
                       NoDenormals here;
                       pass.step(group, step, oldest, buffers.scratch[thread]);
                   });
}

}  // namespace dsclora
