// Two hosts' agents joined by one or two cables, in virtual time. Messages arrive at once unless
// the test's filter takes them away.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "fabric/host_agent.h"

namespace tbt::fabric {

class AgentPair {
 public:
  explicit AgentPair(uint32_t cables = 1) : cables_(cables) {
    for (uint32_t h = 0; h < 2; h++) start(h, 0x1000 + h);
  }

  static AgentConfig config(uint32_t host, uint64_t incarnation, uint32_t cables) {
    AgentConfig c;
    c.fabric_name = "test";
    c.host_name = "host" + std::to_string(host);
    c.host_index = host;
    c.incarnation = incarnation;
    c.cables.assign(cables, {0, true, 80});
    return c;
  }

  // (Re)starts a host's agent; the other one is not told.
  void start(uint32_t host, uint64_t incarnation) {
    agents_[host] = std::make_unique<HostAgent>(config(host, incarnation, cables_), now);
  }
  // A daemon follows the killed one and finds its directory.
  void resume(uint32_t host, const DirectoryData& before) {
    agents_[host] =
        std::make_unique<HostAgent>(config(host, before.incarnation, cables_), before, now);
  }
  // As if its daemon had been killed.
  void stop(uint32_t host) { agents_[host].reset(); }

  HostAgent& operator[](uint32_t host) { return *agents_[host]; }
  CableEntry link(uint32_t host, uint32_t cable = 0) {
    return agents_[host]->directory().links[cable];
  }
  LinkState state(uint32_t host, uint32_t cable = 0) { return link(host, cable).state; }

  // Delivers what the agents have to say until they have nothing more to say.
  void settle() {
    for (bool any = true; any;) {
      any = false;
      for (uint32_t from = 0; from < 2; from++) {
        ControlOutput out;
        while (agents_[from] != nullptr && agents_[from]->poll_transmit(out)) {
          any = true;
          sent.push_back(out);
          if (agents_[1 - from] == nullptr || (filter && !filter(from, out))) continue;
          agents_[1 - from]->handle_message(now, out.cable, out.tag, out.message);
        }
      }
    }
  }

  // Lets the time pass, stopping at each moment that an agent asked for.
  void run(Duration duration) {
    const Instant end = now + duration;
    settle();
    while (true) {
      Instant next = Instant::never();
      for (const auto& agent : agents_) {
        if (agent != nullptr) next = std::min(next, agent->poll_timeout());
      }
      if (next > end) break;
      now = std::max(now, next);
      for (const auto& agent : agents_) {
        if (agent != nullptr && agent->poll_timeout() <= now) agent->handle_timeout(now);
      }
      settle();
    }
    now = end;
  }

  Instant now{1000};
  std::function<bool(uint32_t from, const ControlOutput&)> filter;  // false: the message is lost
  std::vector<ControlOutput> sent;

 private:
  uint32_t cables_;
  std::unique_ptr<HostAgent> agents_[2];
};

inline wire::ControlMessage decoded(const ControlOutput& output) {
  wire::ControlMessage message;
  EXPECT_EQ(wire::decode_control(output.message, message), wire::ControlError::kNone);
  return message;
}

}  // namespace tbt::fabric
