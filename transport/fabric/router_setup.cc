#include "fabric/router_setup.h"

#include <algorithm>
#include <array>

#include "fabric/router_regs.h"

namespace tbt::fabric {

using wire::tb::ConfigSpace;

namespace {

constexpr uint32_t kCapabilitiesMax = 32;  // of an adapter: their list may lead in a circle
constexpr uint8_t kRouterWords = 5;
constexpr uint8_t kAdapterWords = 8;
constexpr uint8_t kOperationWords = 16;

}  // namespace

ConfigAccess RouterSetup::access(Instant now) {
  switch (step_) {
    case Step::kIdentify:
      return config_read(ConfigSpace::kRouter, 0, kRouterIds, kRouterWords);
    case Step::kEnumerate:
      return config_write(ConfigSpace::kRouter, 0, 1, std::span<const uint32_t>(words_).subspan(1));
    case Step::kReady:
      limit_ = std::min(limit_, now + kRouterReadyLimit);
      return config_read(ConfigSpace::kRouter, 0, kRouterStatus, 1);
    case Step::kUniqueId:
      return config_read(ConfigSpace::kRouter, 0, kRouterUniqueId, 2);
    case Step::kBufferStart: {
      limit_ = now + kOperationLimit;
      const std::array<uint32_t, 1> command = {kOperationBufferAllocation | kOperationBusy};
      return config_write(ConfigSpace::kRouter, 0, kOperationCommand, command);
    }
    case Step::kBufferWait:
      return config_read(ConfigSpace::kRouter, 0, kOperationMetadata, 2);
    case Step::kBufferData:
      return config_read(ConfigSpace::kRouter, 0, kOperationData, kOperationWords);
    case Step::kAdapter:
      return config_read(ConfigSpace::kAdapter, adapter_, 0, kAdapterWords);
    case Step::kCapability:
      return config_read(ConfigSpace::kAdapter, adapter_, capability_, 1);
    case Step::kControlPath:
      break;
  }
  return config_read(ConfigSpace::kPath, adapter_, 0, 2);
}

void RouterSetup::take(Instant now, const ConfigResult& result) {
  switch (step_) {
    case Step::kIdentify:
      return identify(result);
    case Step::kEnumerate:
      if (!failed(result, "the router cannot be enumerated")) go(Step::kReady);
      return;
    case Step::kReady:
      return ready(now, result);
    case Step::kUniqueId:
      return unique_id(result);
    case Step::kBufferStart:
      if (!result.done()) return buffers_unknown(outcome_text(result).c_str());
      return go(Step::kBufferWait);
    case Step::kBufferWait:
      return buffer_wait(now, result);
    case Step::kBufferData:
      return buffer_data(result);
    case Step::kAdapter:
      return adapter(result);
    case Step::kCapability:
      return capability(result);
    case Step::kControlPath:
      return control_path(result);
  }
}

void RouterSetup::identify(const ConfigResult& result) {
  if (failed(result, "the router does not answer on the control channel")) return;
  std::ranges::copy(result.data.span(), words_);
  if (words_[0] == UINT32_MAX) return fail("the controller is gone: its registers are all ones");
  router_.vendor_id = static_cast<uint16_t>(bits(words_[0], 15, 0));
  router_.device_id = static_cast<uint16_t>(bits(words_[0], 31, 16));
  router_.upstream_adapter = static_cast<uint8_t>(bits(words_[1], 13, 8));
  router_.max_adapter = static_cast<uint8_t>(bits(words_[1], 19, 14));
  router_.usb4_version = bits(words_[4], 31, 29);
  if (router_.usb4_version == 0) {
    return fail("a Thunderbolt 3 router: only routers of USB4 and later can be driven");
  }
  if (bits(words_[1], 22, 20) != 0) return fail("not a host router: it has a router above it");
  // Which manager speaks to it decides what the router shows of itself; an old one sees less.
  const uint32_t manager = router_.usb4_version < 2 ? kManagerV1 : kManagerV2;
  words_[2] = 0;  // the host router's route is 0
  words_[3] = kRouterEnumerated;
  words_[4] = with_bits(with_bits(words_[4], 7, 0, kNotificationTimeout), 15, 8, manager);
  go(Step::kEnumerate);
}

void RouterSetup::ready(Instant now, const ConfigResult& result) {
  if (failed(result, "the router's status cannot be read")) return;
  if ((result.word(0) & (kStatusRouterReady | kStatusConfigurationReady)) == 0) {
    if (now < limit_) return wait_until(now + kConfigPollInterval);
    // Linux does not ask a host router, so there may be some that never say it.
    warnings_.emplace_back("the router does not say that it is ready; going on without");
  }
  go(Step::kUniqueId);
}

void RouterSetup::unique_id(const ConfigResult& result) {
  if (failed(result, "the router's unique id cannot be read")) return;
  if ((result.word(0) | result.word(1)) == 0) return fail("the router has no unique id");
  // A router without a UUID of its own gets its unique id, filled up with ones.
  router_.uuid =
      wire::tb::uuid_from_dwords({result.word(0), result.word(1), UINT32_MAX, UINT32_MAX});
  go(Step::kBufferStart);
}

void RouterSetup::buffer_wait(Instant now, const ConfigResult& result) {
  if (!result.done()) return buffers_unknown(outcome_text(result).c_str());
  const uint32_t command = result.word(1);
  if ((command & kOperationBusy) != 0) {
    if (now < limit_) return wait_until(now + kConfigPollInterval);
    return buffers_unknown("it does not come to an end");
  }
  // Not to support it is a router's right, and no news.
  if ((command & kOperationUnsupported) != 0) return next_adapter();
  if (bits(command, 29, 24) != 0) return buffers_unknown("it failed");
  left_ = std::min<uint32_t>(bits(result.word(0), 7, 0), kOperationWords);
  go(Step::kBufferData);
}

void RouterSetup::buffer_data(const ConfigResult& result) {
  if (!result.done()) return buffers_unknown(outcome_text(result).c_str());
  for (const uint32_t word : result.data.span().first(left_)) {
    if (bits(word, 15, 0) == kBufferMaxHi) router_.max_hi_credits = bits(word, 31, 16);
  }
  next_adapter();
}

void RouterSetup::buffers_unknown(const char* why) {
  warnings_.push_back(std::string("buffer allocation of the router: ") + why);
  next_adapter();
}

void RouterSetup::adapter(const ConfigResult& result) {
  if (result.outcome == ConfigOutcome::kNoAnswer) {
    return fail("adapter " + std::to_string(adapter_) + " does not answer");
  }
  // Numbers may be missing in the row.
  if (!result.done()) return next_adapter();
  AdapterInfo info;
  info.number = adapter_;
  info.type = bits(result.word(2), 23, 0);
  info.max_in_hop_id = static_cast<uint16_t>(bits(result.word(5), 10, 0));
  info.max_out_hop_id = static_cast<uint16_t>(bits(result.word(5), 21, 11));
  info.buffers = bits(result.word(4), 29, 20);
  adapters_.push_back(info);
  if (info.type != kAdapterLane) return next_adapter();
  capability_ = static_cast<uint16_t>(bits(result.word(1), 7, 0));
  left_ = kCapabilitiesMax;
  go(capability_ == 0 ? Step::kControlPath : Step::kCapability);
}

void RouterSetup::capability(const ConfigResult& result) {
  if (failed(result, "an adapter's capabilities cannot be read")) return;
  const uint32_t id = bits(result.word(0), 15, 8);
  if (id == kCapabilityLane) adapters_.back().lane = capability_;
  if (id == kCapabilityUsb4Port) adapters_.back().usb4_port = capability_;
  capability_ = static_cast<uint16_t>(bits(result.word(0), 7, 0));
  if (--left_ == 0) return fail("an adapter's list of capabilities has no end");
  if (capability_ == 0) go(Step::kControlPath);
}

void RouterSetup::control_path(const ConfigResult& result) {
  // Only to know how many buffers are left; without it none are taken off.
  if (result.done()) adapters_.back().control_credits = bits(result.word(0), 23, 17);
  next_adapter();
}

void RouterSetup::next_adapter() {
  if (step_ == Step::kAdapter || step_ == Step::kCapability || step_ == Step::kControlPath) {
    ++adapter_;
  }
  if (adapter_ > router_.max_adapter) return complete();
  go(Step::kAdapter);
}

void RouterSetup::complete() {
  const auto nhi = std::ranges::find(adapters_, kAdapterNhi, &AdapterInfo::type);
  if (nhi == adapters_.end()) return fail("the router has no host interface adapter");
  router_.nhi_adapter = nhi->number;
  router_.nhi_hop_id_max = std::min(nhi->max_in_hop_id, nhi->max_out_hop_id);
  const bool any = std::ranges::any_of(
      adapters_, [](const AdapterInfo& info) { return info.usb4_port != 0 && info.lane != 0; });
  if (!any) return fail("the router has no USB4 port");
  finish();
}

}  // namespace tbt::fabric
