// Names of states and statuses, for messages.
#include "tbt/types.h"

namespace tbt {

const char* qp_state_name(QpState state) noexcept {
  switch (state) {
    case QpState::kReset:
      return "reset";
    case QpState::kInit:
      return "init";
    case QpState::kRtr:
      return "rtr";
    case QpState::kRts:
      return "rts";
    case QpState::kSqd:
      return "sqd";
    case QpState::kSqe:
      return "sqe";
    case QpState::kErr:
      return "err";
  }
  return "unknown";
}

const char* wc_status_name(WcStatus status) noexcept {
  switch (status) {
    case WcStatus::kSuccess:
      return "success";
    case WcStatus::kLocLen:
      return "local length error";
    case WcStatus::kLocQpOp:
      return "local QP operation error";
    case WcStatus::kLocProt:
      return "local protection error";
    case WcStatus::kWrFlush:
      return "work request flushed";
    case WcStatus::kMwBind:
      return "memory window bind error";
    case WcStatus::kBadResp:
      return "bad response";
    case WcStatus::kLocAccess:
      return "local access error";
    case WcStatus::kRemInvReq:
      return "remote invalid request";
    case WcStatus::kRemAccess:
      return "remote access error";
    case WcStatus::kRemOp:
      return "remote operation error";
    case WcStatus::kRetryExc:
      return "transport retry exceeded";
    case WcStatus::kRnrRetryExc:
      return "receiver-not-ready retry exceeded";
    case WcStatus::kRemAbort:
      return "remote abort";
    case WcStatus::kFatal:
      return "fatal";
    case WcStatus::kRespTimeout:
      return "response timeout";
    case WcStatus::kGeneral:
      return "general error";
  }
  return "unknown";
}

}  // namespace tbt
