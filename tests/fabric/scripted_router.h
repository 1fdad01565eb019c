// A router made of dwords that a test sets as it likes, for running configuration tasks without a
// control channel. What has no dword is refused; `before` may change anything before an access.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "fabric/config_task.h"

namespace tbt::fabric {

class ScriptedRouter {
 public:
  using Space = wire::tb::ConfigSpace;

  uint32_t& at(Space space, uint8_t adapter, uint16_t offset) {
    return words_[{space, adapter, offset}];
  }
  uint32_t& router(uint16_t offset) { return at(Space::kRouter, 0, offset); }
  uint32_t& adapter(uint8_t number, uint16_t offset) { return at(Space::kAdapter, number, offset); }
  uint32_t& path(uint8_t adapter, uint16_t hop_id, uint16_t word) {
    return at(Space::kPath, adapter, static_cast<uint16_t>(2 * hop_id + word));
  }
  void fill(Space space, uint8_t adapter, uint16_t first, uint16_t count) {
    for (uint16_t i = 0; i < count; ++i) at(space, adapter, static_cast<uint16_t>(first + i));
  }
  void remove_adapter(uint8_t number) {
    std::erase_if(words_, [&](const auto& entry) {
      return std::get<0>(entry.first) != Space::kRouter && std::get<1>(entry.first) == number;
    });
  }

  // Until the task has finished, or `limit` has passed.
  void run(ConfigTask& task, Duration limit = Duration::from_s(10)) {
    const Instant end = now + limit;
    while (!task.finished()) {
      if (const auto access = task.poll_access(now)) {
        log.push_back(*access);
        task.handle_result(now, answer(*access));
        now = now + Duration::from_us(5);
      } else {
        ASSERT_FALSE(task.poll_timeout().is_never());
        ASSERT_LT(task.poll_timeout(), end) << "the task does not come to its end";
        now = std::max(now, task.poll_timeout());
      }
    }
  }

  [[nodiscard]] std::vector<ConfigAccess> writes() const {
    std::vector<ConfigAccess> found;
    for (const ConfigAccess& access : log) {
      if (access.write) found.push_back(access);
    }
    return found;
  }

  Instant now{1'000'000'000};
  bool silent = false;
  uint8_t error = wire::tb::kBadAddress;
  std::vector<ConfigAccess> log;
  std::function<void(const ConfigAccess&)> before = [](const ConfigAccess&) {};

 private:
  ConfigResult answer(const ConfigAccess& access) {
    before(access);
    ConfigResult result;
    if (silent) {
      now = now + kConfigTimeout * kConfigAttempts;
      result.outcome = ConfigOutcome::kNoAnswer;
      return result;
    }
    for (uint16_t i = 0; i < access.length; ++i) {
      const auto word = words_.find({access.space, access.adapter, access.offset + i});
      if (word == words_.end() || access.route.value != 0) {
        result.outcome = ConfigOutcome::kRefused;
        result.error = error;
        result.data = {};
        return result;
      }
      if (access.write) {
        word->second = access.data.span()[i];
      } else {
        result.data.push(word->second);
      }
    }
    return result;
  }

  std::map<std::tuple<Space, uint8_t, uint16_t>, uint32_t> words_;
};

}  // namespace tbt::fabric
