#include "fabric/router_status.h"

namespace tbt::fabric {

const char* router_state_name(RouterState state) noexcept {
  switch (state) {
    case RouterState::kStopped:
      return "stopped";
    case RouterState::kStarting:
      return "starting";
    case RouterState::kReady:
      return "ready";
    case RouterState::kRefused:
      return "refused";
    case RouterState::kClosing:
      return "closing";
    case RouterState::kClosed:
      return "closed";
  }
  return "?";
}

const char* ip_link_state_name(IpLinkState state) noexcept {
  switch (state) {
    case IpLinkState::kNotOffered:
      return "not offered";
    case IpLinkState::kStarting:
      return "starting";
    case IpLinkState::kLoggingIn:
      return "logging in";
    case IpLinkState::kOpening:
      return "opening";
    case IpLinkState::kConnected:
      return "connected";
    case IpLinkState::kResting:
      return "resting";
    case IpLinkState::kLoggedOut:
      return "logged out";
    case IpLinkState::kFailed:
      return "failed";
  }
  return "?";
}

const char* flow_reason_text(FlowReason reason) noexcept {
  switch (reason) {
    case FlowReason::kOffered:
      return "as both ends offer";
    case FlowReason::kTested:
      return "tried and found to work";
    case FlowReason::kFailedHere:
      return "the hardware's credits failed here";
    case FlowReason::kFailedThere:
      return "the hardware's credits failed at the peer";
  }
  return "?";
}

const char* port_state_name(PortState state) noexcept {
  switch (state) {
    case PortState::kUnknown:
      return "unknown";
    case PortState::kUnplugged:
      return "unplugged";
    case PortState::kTraining:
      return "training";
    case PortState::kUp:
      return "up";
    case PortState::kDisabled:
      return "disabled";
    case PortState::kForeign:
      return "not a host";
    case PortState::kFailed:
      return "failed";
  }
  return "?";
}

}  // namespace tbt::fabric
