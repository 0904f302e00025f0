#include "pipeline.hpp"

#include <time.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dsclora {
namespace {

using namespace std::chrono_literals;

constexpr auto LOST = 1000us;  // more than this between a step's two clocks: the core was somebody else's
constexpr auto FIRST_PAUSE = 20ms;
constexpr auto LONGEST_PAUSE = 320ms;
constexpr auto PATIENCE = 30us;  // to wait awake: mostly it is a matter of microseconds

std::chrono::nanoseconds processor_time() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
#else
    return std::chrono::steady_clock::now().time_since_epoch();
#endif
}

void wait_a_little() {
    for (int n = 0; n < 16; ++n) {
#if defined(__x86_64__)
        _mm_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }
}

}  // namespace

// The state that caller and helpers share. Helpers may outlive the call by a moment, but touch `step` only while a step is
// theirs.
struct Pipeline::Run {
    const int groups, ahead;
    const int64_t steps;
    const Step* step;
    std::mutex mutex;
    std::condition_variable changed;
    std::atomic<uint32_t> version{0};  // grows with every step that ends
    std::vector<int64_t> done;
    std::vector<char> busy;

    Run(int g, int a, int64_t s, const Step* f) : groups(g), ahead(a), steps(s), step(f), done(g, 0), busy(g, 0) {}

    bool finished() const { return done[groups - 1] == steps; }

    // The deepest group whose next step can be run, or -1.
    int next_group() const {
        for (int g = groups - 1; g >= 0; --g)
            if (!busy[g] && done[g] < (g ? done[g - 1] : std::min(steps, done[groups - 1] + ahead + 1))) return g;
        return -1;
    }

    // Runs a step, or waits until there may be one to run.
    void advance(std::unique_lock<std::mutex>& lock, int thread) {
        const int g = next_group();
        if (g < 0) {
            const uint32_t seen = version;
            lock.unlock();
            const auto until = Clock::now() + PATIENCE;
            while (version == seen && Clock::now() < until) wait_a_little();
            lock.lock();
            changed.wait(lock, [&] { return version != seen; });
            return;
        }
        busy[g] = 1;
        const int64_t next = done[g], oldest = done[groups - 1];
        lock.unlock();
        (*step)(g, next, oldest, thread);
        lock.lock();
        busy[g] = 0;
        ++done[g];
        ++version;
        changed.notify_all();
    }
};

Pipeline::Pipeline(int n) : threads(n) {
    for (int t = 1; t < threads; ++t) helpers_.push_back(std::make_shared<Helper>());
}

void Pipeline::run(int groups, int64_t steps, int ahead, const Step& step) {
    if (helpers_.empty()) {
        for (int64_t s = 0; s < steps; ++s)
            for (int g = 0; g < groups; ++g) step(g, s, s, 0);
        return;
    }
    const auto run = std::make_shared<Run>(groups, ahead, steps, &step);
    std::unique_lock<std::mutex> lock(run->mutex);
    while (!run->finished()) {
        for (size_t h = 0; h < helpers_.size(); ++h) {
            Helper& helper = *helpers_[h];
            if (helper.running || Clock::now().time_since_epoch().count() < helper.resume) continue;
            helper.running = true;
            try {
                std::thread(help, run, helpers_[h], static_cast<int>(h) + 1).detach();
            } catch (const std::exception&) {  // no more threads or memory to be had: later, perhaps
                helper.running = false;
                helper.resume = (Clock::now() + LONGEST_PAUSE).time_since_epoch().count();
            }
        }
        run->advance(lock, 0);
    }
}

void Pipeline::help(std::shared_ptr<Run> run, std::shared_ptr<Helper> self, int thread) {
    std::unique_lock<std::mutex> lock(run->mutex);
    while (!run->finished()) {
        const auto wall = Clock::now();
        const auto processor = processor_time();
        const bool works = run->next_group() >= 0;
        run->advance(lock, thread);
        if (!works) continue;
        const auto now = Clock::now();
        if ((now - wall) - (processor_time() - processor) > LOST) {
            const Clock::duration worked(self->worked), pause(self->pause), first = FIRST_PAUSE, longest = LONGEST_PAUSE;
            const auto next = worked > pause ? first : std::min(std::max(2 * pause, first), longest);
            self->worked = 0;
            self->pause = next.count();
            self->resume = (now + next).time_since_epoch().count();
            break;
        }
        self->worked += (now - wall).count();
    }
    self->running = false;
}

}  // namespace dsclora
