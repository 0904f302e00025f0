// The steps of a pipeline, shared by threads.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace dsclora {

// Every group runs all steps in order, and a step only after the group before has. No more than `ahead` steps are under way
// besides the oldest. A thread takes the deepest group that has a step to run, so it mostly follows its own step down, and no
// thread waits for another while there is anything to do.
//
// A helper thread that loses its core to another process holds up the others until it gets it back. It notices afterwards, by
// its clocks, and stays away for a while, longer each time: on a busy machine the caller is soon alone and no slower for it.
class Pipeline {
public:
    using Step = std::function<void(int group, int64_t step, int64_t oldest, int thread)>;

    explicit Pipeline(int threads);

    const int threads;

    // Calls `step` for every group and step. All steps before `oldest` are done; `thread` is 0 for the caller and below
    // `threads` for helpers.
    void run(int groups, int64_t steps, int ahead, const Step& step);

private:
    using Clock = std::chrono::steady_clock;
    struct Helper {
        std::atomic<bool> running{false};
        std::atomic<Clock::rep> resume{0};  // when it may come again
        std::atomic<Clock::rep> pause{0};   // how long it stayed away the last time
        std::atomic<Clock::rep> worked{0};  // since then
    };
    struct Run;

    static void help(std::shared_ptr<Run> run, std::shared_ptr<Helper> self, int thread);

    std::vector<std::shared_ptr<Helper>> helpers_;
};

}  // namespace dsclora
