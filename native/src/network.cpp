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

Network::Network(const Kernel& k, const std::vector<Weights>& body, const Weights& joint, const Weights& pointwise,
                 const Weights& last, int s, const float mean[3], float range)
    : scale(s), kernel(k), convs_(CONVS), range_(range), channels_(body[0].outputs) {
    for (int n = 0; n < JOINT; ++n) pack(convs_[n], body[n]);
    pack(convs_[JOINT], joint);
    pack(convs_[JOINT + 1], last);
    pack(pointwise_, pointwise);
    std::copy(mean, mean + 3, mean_);
}

void Network::pack(Packed& to, const Weights& from) const {
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
                        const float* w = from.weight + (static_cast<size_t>(o) * from.inputs + i) * from.size * from.size;
                        double sum = w[0];
                        if (from.size == 3) {
                            sum = 0;
                            for (int y = 0; y < 3; ++y)
                                for (int x = 0; x < 3; ++x) sum += g[position / 6][y] * w[3 * y + x] * g[position % 6][x];
                        }
                        to.weights.push_back(static_cast<float>(sum));
                    }
    if (from.bias) to.bias.assign(from.bias, from.bias + from.outputs);
    to.conv = {from.inputs, from.outputs, to.weights.data(), to.bias.data()};
}

namespace {

template <typename T>
void read_row(const Picture& from, int y, int first, int last, const float mean[3], float range, float peak, float* to,
              ptrdiff_t pitch) {
    for (int c = 0; c < 3; ++c) {
        const char* p = static_cast<const char*>(from.data) + y * from.row + first * from.column + c * from.band;
        const float factor = range / peak, offset = -mean[c] * range;
        for (int x = first; x < last; ++x, p += from.column) {
            T sample;
            std::memcpy(&sample, p, sizeof(T));
            to[(4 * c + x % 4) * pitch + x / 4] = static_cast<float>(sample) * factor + offset;
        }
    }
}

}  // namespace

void Network::run(const Picture& from, const Picture& to, int threads) {
    std::lock_guard<std::mutex> one_at_a_time(running_);
    const int height = from.height, width = from.width;

    if (!frame_ || frame_->width != width || frame_->threads != threads) {
        frame_.reset();  // before the next one is made
        const int outputs = std::max(convs_[JOINT + 1].conv.outputs, channels_);
        frame_ = std::make_unique<Frame>(width, threads, channels_, kernel.scratch(channels_ + 3, outputs));
    }
    if (!crew_ || crew_->threads != threads) crew_ = std::make_unique<Crew>(threads);
    Frame& f = *frame_;

    f.bands = (height + CONVS + BAND - 1) / BAND;
    const int64_t steps = int64_t{f.bands} * f.strips;

    // What one step makes of a ring's rows, told to `row(y)`.
    const auto rows_of = [&](int ring, int band, auto&& row) {
        const int stop = std::min(BAND * (band + 1) - ring, height);
        for (int y = std::max(BAND * band - ring, 0); y < stop; ++y) row(y);
    };

    // Before a ring's rows are made: the column to the left is the one the strip before made, or zero; and zero is the column
    // to the right of the last strip. Afterwards the last column that is this strip's own is put aside for the next.
    const auto begin = [&](int r, int band, int strip) {
        if (f.strips == 1) return;
        const float* margin = f.margin(r, band);
        rows_of(r, band, [&](int y) {
            float* row = f.row(r, strip, y);
            for (int c = 0; c < f.rings[r].channels; ++c, row += 4 * f.pitch, ++margin) {
                row[3 * f.pitch + f.start(strip) - 1] = strip ? *margin : 0.0f;
                if (strip == f.strips - 1) row[f.tiles] = 0.0f;
            }
        });
    };
    const auto finish = [&](int r, int band, int strip) {
        if (strip == f.strips - 1) return;
        float* margin = f.margin(r, band);
        rows_of(r, band, [&](int y) {
            const float* row = f.row(r, strip, y) + 3 * f.pitch + f.start(strip + 1) - 1;
            for (int c = 0; c < f.rings[r].channels; ++c, row += 4 * f.pitch) *margin++ = *row;
        });
    };

    const auto read = [&](int band, int strip) {
        begin(0, band, strip);
        rows_of(0, band, [&](int y) {
            float* row = f.row(0, strip, y);
            const int first = 4 * f.start(strip), last = std::min(4 * f.end(strip) + 1, width);
            if (from.kind == Pixel::u8) read_row<uint8_t>(from, y, first, last, mean_, range_, 255.0f, row, f.pitch);
            if (from.kind == Pixel::u16) read_row<uint16_t>(from, y, first, last, mean_, range_, 65535.0f, row, f.pitch);
            if (from.kind == Pixel::f32) read_row<float>(from, y, first, last, mean_, range_, 1.0f, row, f.pitch);
        });
        finish(0, band, strip);
    };

    const auto convolve = [&](int k, int band, int strip, float* scratch) {
        const int made = k + 1;  // its ring
        const auto row = [&](int ring, int y) { return y < 0 || y >= height ? f.zero(strip) : f.row(ring, strip, y); };
        Call call;
        call.conv = convs_[k].conv;
        call.pitch = f.pitch;
        call.first = f.start(strip), call.last = f.end(strip);
        call.width = strip == f.strips - 1 ? width : 4 * f.start(strip + 1);
        call.inside = f.inside.data(), call.inside_pitch = f.inside_pitch;
        call.picture = &to;
        call.scale = scale;
        call.scratch = scratch;
        call.channels[0] = f.rings[k].channels;
        call.finish = k == 0           ? Finish::linear
                      : k == JOINT     ? Finish::join
                      : k == JOINT + 1 ? Finish::pixels
                      : k % 3          ? Finish::silu
                                       : Finish::attend;
        if (k == JOINT) call.channels[1] = 3, call.pointwise = pointwise_.conv;
        if (made < CONVS) begin(made, band, strip);
        for (int y = BAND * band - made; y < std::min(BAND * (band + 1) - made, height); y += 4) {
            if (y + 4 <= 0) continue;
            call.y = y;
            for (int i = 0; i < 6; ++i) {
                call.rows[0][i] = row(k, y - 1 + i);
                if (k == JOINT) call.rows[1][i] = row(0, y - 1 + i);
            }
            for (int a = 0; a < 4; ++a) {
                const bool there = y + a >= 0 && y + a < height;
                call.out[a] = there && made < CONVS ? f.row(made, strip, y + a) : nullptr;
                if (call.finish == Finish::attend) call.residual[a] = row(k - 2, y + a);
                if (k == JOINT) {
                    call.points[0][a] = there ? f.row(BLOCK_1, strip, y + a) : nullptr;
                    call.points[1][a] = there ? f.row(INNER, strip, y + a) : nullptr;
                }
            }
            kernel.conv(call);
        }
        if (made < CONVS) finish(made, band, strip);
    };

    const auto run_step = [&](int group, int64_t step, int64_t oldest, float* scratch) {
        int strip, band;
        f.place_of(step, strip, band);
        if (group == 0) {
            f.take_slots(step, oldest);
            read(band, strip);
        }
        for (int k = 0; k < CONVS; ++k)
            if (f.group_of(k) == group) convolve(k, band, strip, scratch);
    };

    crew_->run(f.groups, steps, f.ahead, [&](int group, int64_t step, int64_t oldest, int thread) {
        NoDenormals here;
        run_step(group, step, oldest, f.scratch[thread]);
    });
}

}  // namespace dsclora
