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
