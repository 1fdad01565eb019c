#include "fabric/config_task.h"

namespace tbt::fabric {

std::string outcome_text(const ConfigResult& result) {
  switch (result.outcome) {
    case ConfigOutcome::kDone:
      return "done";
    case ConfigOutcome::kNoAnswer:
      return "no answer";
    case ConfigOutcome::kRefused:
      break;
  }
  return wire::tb::notification_name(result.error);
}

bool ConfigTask::failed(const ConfigResult& result, const char* step) {
  if (result.done()) return false;
  fail(std::string(step) + ": " + outcome_text(result));
  return true;
}

}  // namespace tbt::fabric
