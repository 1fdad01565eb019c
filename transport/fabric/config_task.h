// ConfigTask: a piece of set-up as a sequence of named steps, each one access to a router's
// configuration. Whoever owns it carries the accesses to the control channel and the results back;
// a task that is not wanted any more is thrown away at any step.
#pragma once

#include <optional>
#include <string>

#include "base/assert.h"
#include "base/time.h"
#include "fabric/control_channel.h"

namespace tbt::fabric {

class ConfigTask {
 public:
  ConfigTask() = default;
  virtual ~ConfigTask() = default;
  ConfigTask(const ConfigTask&) = delete;
  ConfigTask& operator=(const ConfigTask&) = delete;

  // The next access; nothing while its predecessor is not answered, while the task waits, or at its
  // end.
  std::optional<ConfigAccess> poll_access(Instant now) {
    if (finished_ || outstanding_ || now < wake_) return std::nullopt;
    outstanding_ = true;
    return access(now);
  }
  void handle_result(Instant now, const ConfigResult& result) {
    TBT_ASSERT(outstanding_);
    outstanding_ = false;
    take(now, result);
  }
  [[nodiscard]] Instant poll_timeout() const noexcept {
    return finished_ || outstanding_ ? Instant::never() : wake_;
  }
  [[nodiscard]] bool finished() const noexcept { return finished_; }
  // Why it came to nothing; empty if it did not.
  [[nodiscard]] const std::string& failure() const noexcept { return failure_; }

 protected:
  // The access of the current step.
  virtual ConfigAccess access(Instant now) = 0;
  // Its answer: goes on to another step, waits, or ends.
  virtual void take(Instant now, const ConfigResult& result) = 0;

  void wait_until(Instant time) noexcept { wake_ = time; }
  void finish() noexcept { finished_ = true; }
  void fail(std::string why) {
    failure_ = std::move(why);
    finished_ = true;
  }
  // For steps that cannot go on without their answer.
  bool failed(const ConfigResult& result, const char* step);

 private:
  bool outstanding_ = false;
  bool finished_ = false;
  Instant wake_{};
  std::string failure_;
};

// Why there is no result: the router's error, or that it did not answer.
std::string outcome_text(const ConfigResult& result);

}  // namespace tbt::fabric
