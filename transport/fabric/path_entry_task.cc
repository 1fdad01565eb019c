#include "fabric/path_entry_task.h"

#include <algorithm>

#include "fabric/router_regs.h"
#include "fabric/router_setup.h"

namespace tbt::fabric {

using wire::tb::ConfigSpace;

namespace {

// Makes the two words of an entry lead to the target; what is not ours stays.
void aim(const PathIngress& ingress, const PathTarget& target, uint32_t (&words)[2]) {
  uint32_t to = with_bits(words[0], 10, 0, target.next_hop_id);
  to = with_bits(to, 16, 11, target.egress_adapter);
  to = with_bits(to, 24, 24, 0);  // no power management packets
  uint32_t how = with_bits(words[1], 3, 0, kPathWeight);
  how = with_bits(how, 10, 8, kPathPriority);
  how = with_bits(how, 11, 11, 0);  // do not drop
  how = with_bits(how, 23, 12, 0);  // no counter
  how = (how | kPathEgressFlow) & ~kPathEgressShared;
  if (ingress.lane) {
    to = with_bits(to, 23, 17, target.credits);
    how = (how | kPathIngressFlow) & ~kPathIngressShared;
  }
  words[0] = to | kPathEnable;
  words[1] = how;
}

}  // namespace

uint16_t PathEntryTask::offset() const noexcept {
  return static_cast<uint16_t>(2 * ingress_.hop_id);
}

ConfigAccess PathEntryTask::write() const {
  return config_write(ConfigSpace::kPath, ingress_.adapter, offset(), words_);
}

ConfigAccess PathEntryTask::access(Instant now) {
  switch (step_) {
    case Step::kRead:
    case Step::kPending:
      return config_read(ConfigSpace::kPath, ingress_.adapter, offset(), 2);
    case Step::kDisable:
      limit_ = now + kPathPendingLimit;
      return write();
    case Step::kClear:
    case Step::kEnable:
      break;
  }
  return write();
}

void PathEntryTask::take(Instant now, const ConfigResult& result) {
  if (failed(result, "a path entry")) return;
  switch (step_) {
    case Step::kRead:
      std::ranges::copy(result.data.span(), words_);
      if ((words_[0] & kPathEnable) == 0) return cleared();
      words_[0] &= ~kPathEnable;
      step_ = Step::kDisable;
      return;
    case Step::kDisable:
      step_ = Step::kPending;
      return;
    case Step::kPending:
      std::ranges::copy(result.data.span(), words_);
      stuck_ = (words_[1] & kPathPending) != 0;
      if (stuck_ && now < limit_) return wait_until(now + kConfigPollInterval);
      take_flow_control_off();
      step_ = Step::kClear;
      return;
    case Step::kClear:
      return cleared();
    case Step::kEnable:
      return finish();
  }
}

void PathEntryTask::take_flow_control_off() {
  words_[1] &= ~(kPathEgressFlow | kPathEgressShared);
  if (ingress_.lane) words_[1] &= ~(kPathIngressFlow | kPathIngressShared);
}

void PathEntryTask::cleared() {
  if (!target_) return finish();
  aim(ingress_, *target_, words_);
  step_ = Step::kEnable;
}

ConfigAccess PathEntryCheck::access(Instant /*now*/) {
  return config_read(ConfigSpace::kPath, ingress_.adapter,
                     static_cast<uint16_t>(2 * ingress_.hop_id), 2);
}

void PathEntryCheck::take(Instant /*now*/, const ConfigResult& result) {
  if (failed(result, "a path entry")) return;
  const uint32_t found[2] = {result.word(0), result.word(1)};
  uint32_t wanted[2] = {found[0], found[1]};
  target_.credits = bits(found[0], 23, 17);
  aim(ingress_, target_, wanted);
  as_wanted_ = std::ranges::equal(found, wanted);
  finish();
}

}  // namespace tbt::fabric
