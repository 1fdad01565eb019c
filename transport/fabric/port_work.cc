// The part of a port that works on the router: which task is next, and what follows from its end.
#include <utility>

#include "fabric/port.h"

namespace tbt::fabric {

PathIngress Port::transmit_entry() const {
  return {.adapter = router_.nhi_adapter, .hop_id = ring(), .lane = false};
}

PathIngress Port::receive_entry() const {
  return {.adapter = shape_.lane0, .hop_id = wire::tb::kPathHopIdMin, .lane = true};
}

PathTarget Port::receive_target() const {
  return {.egress_adapter = router_.nhi_adapter,
          .next_hop_id = ring(),
          .credits = status_.receive_credits};
}

wire::tb::PathOffer Port::my_offer() const {
  wire::tb::PathOffer mine;
  mine.rail = static_cast<uint8_t>(status_.port);
  mine.hop_id = receive_entry().hop_id;
  mine.ring_entries = config_.ring_entries;
  mine.features = my_features();
  return mine;
}

void Port::add(Work work, std::unique_ptr<ConfigTask> task) {
  jobs_.push_back({work, std::move(task)});
}

void Port::plan() {
  if (!jobs_.empty()) return;
  const bool agreed = negotiator_.agreed().has_value();
  if (transmit_open_ && !agreed) {
    add(Work::kCloseTransmit, std::make_unique<PathEntryTask>(transmit_entry(), std::nullopt));
  } else if (receive_open_ && !negotiator_.offering()) {
    add(Work::kCloseReceive, std::make_unique<PathEntryTask>(receive_entry(), std::nullopt));
  } else if (plan_ip_closing() || closing_) {
    return;
  } else if (std::exchange(relink_, false)) {
    add(Work::kLink, std::make_unique<LinkTask>(shape_));
  } else if (!receive_open_ && negotiator_.preparing()) {
    add(Work::kClStates, std::make_unique<ClStatesTask>(shape_));
    add(Work::kOpenReceive, std::make_unique<PathEntryTask>(receive_entry(), receive_target()));
  } else if (receive_open_ && !transmit_open_ && agreed) {
    const PathTarget target{.egress_adapter = shape_.lane0,
                            .next_hop_id = negotiator_.agreed()->hop_id};
    add(Work::kOpenTransmit, std::make_unique<PathEntryTask>(transmit_entry(), target));
  } else {
    plan_ip_opening();
  }
}

std::optional<ConfigAccess> Port::poll_access(Instant now) {
  if (ticket_ != 0 || jobs_.empty()) return std::nullopt;
  return jobs_.front().task->poll_access(now);
}

void Port::handle_result(Instant now, const ConfigResult& result) {
  ticket_ = 0;
  if (!jobs_.empty()) {
    ConfigTask& task = *jobs_.front().task;
    task.handle_result(now, result);
    if (task.finished()) {
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      finished(now, std::move(job));
    }
  }
  update(now);
}

void Port::finished(Instant now, Job job) {
  const ConfigTask& task = *job.task;
  switch (job.work) {
    case Work::kSweep:
      return swept(static_cast<const PathSweep&>(task));
    case Work::kLink:
      if (!task.failure().empty()) {
        trouble(task.failure());
        return lose_link(PortState::kFailed, "the port's registers cannot be read");
      }
      return take_reading(now, static_cast<const LinkTask&>(task).reading());
    case Work::kProbe:
      if (!static_cast<const RouterProbe&>(task).found() || status_.peer) return;
      status_.state = PortState::kForeign;
      status_.trouble.clear();
      events_.emplace_back(PortChanged{status_});
      return;
    case Work::kBond:
      if (!task.failure().empty()) trouble(task.failure());
      relink_ = true;
      return;
    case Work::kClStates:
      return;
    case Work::kCheckReceive:
      return checked(static_cast<const PathEntryCheck&>(task), false);
    case Work::kCheckTransmit:
      return checked(static_cast<const PathEntryCheck&>(task), true);
    case Work::kClearEntry:
      return closed_entry(task, "an entry of somebody before us");
    case Work::kOpenReceive:
      return opened_receive(now, task);
    case Work::kOpenTransmit:
      return opened_transmit(now, task);
    case Work::kCloseTransmit:
      transmit_open_ = false;
      return closed_entry(task, "the transmit path");
    case Work::kCloseReceive:
      receive_open_ = false;
      return closed_entry(task, "the receive path");
    case Work::kOpenIpReceive:
      return opened_ip(task, ip_receive_open_);
    case Work::kOpenIpTransmit:
      return opened_ip(task, ip_transmit_open_);
    case Work::kCloseIpTransmit:
      ip_transmit_open_ = false;
      return closed_entry(task, "thunderbolt-net's transmit path");
    case Work::kCloseIpReceive:
      ip_receive_open_ = false;
      return closed_entry(task, "thunderbolt-net's receive path");
  }
}

void Port::sweep() {
  add(Work::kSweep,
      std::make_unique<PathSweep>(shape_.lane0, wire::tb::kPathHopIdMin, status_.max_in_hop_id));
}

void Port::swept(const PathSweep& sweep) {
  for (const uint16_t hop_id : sweep.enabled()) {
    const PathIngress entry{.adapter = sweep.adapter(), .hop_id = hop_id, .lane = true};
    jobs_.push_front({Work::kClearEntry, std::make_unique<PathEntryTask>(entry, std::nullopt)});
  }
}

void Port::opened_receive(Instant now, const ConfigTask& task) {
  if (!task.failure().empty()) {
    broken_ = true;
    trouble(task.failure());
    negotiator_.stop();
    return;
  }
  receive_open_ = true;
  // Otherwise it has come to nothing in the meantime, and plan() closes it.
  if (!negotiator_.preparing()) return;
  negotiator_.offer(now, my_offer());
}

void Port::opened_transmit(Instant now, const ConfigTask& task) {
  if (!task.failure().empty()) {
    broken_ = true;
    trouble(task.failure());
    negotiator_.withdraw(now);
    return;
  }
  transmit_open_ = true;  // and follow_flow() goes on
}

void Port::closed_entry(const ConfigTask& task, const char* which) {
  // There is nothing more that can be done about it; opening it again begins with clearing it.
  if (!task.failure().empty()) {
    trouble(std::string("cannot close ") + which + ": " + task.failure());
  } else if (static_cast<const PathEntryTask&>(task).stuck()) {
    trouble(std::string(which) + " kept packets back when it was closed");
  }
}

}  // namespace tbt::fabric
