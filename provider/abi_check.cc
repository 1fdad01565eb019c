// The transport's numbers are those of verbs, so that provider/ may cast instead of translating.
// Checked here, once.
#include "tbt/types.h"
#include "verbs_abi.h"

namespace tbt {
namespace {

template <typename A, typename B>
constexpr bool same(A a, B b) {
  return static_cast<long>(a) == static_cast<long>(b);
}

static_assert(same(QpType::kRc, IBV_QPT_RC) && same(QpType::kUc, IBV_QPT_UC) &&
              same(QpType::kUd, IBV_QPT_UD) && same(QpType::kXrcSend, IBV_QPT_XRC_SEND) &&
              same(QpType::kXrcRecv, IBV_QPT_XRC_RECV));

static_assert(same(QpState::kReset, IBV_QPS_RESET) && same(QpState::kInit, IBV_QPS_INIT) &&
              same(QpState::kRtr, IBV_QPS_RTR) && same(QpState::kRts, IBV_QPS_RTS) &&
              same(QpState::kSqd, IBV_QPS_SQD) && same(QpState::kSqe, IBV_QPS_SQE) &&
              same(QpState::kErr, IBV_QPS_ERR));

static_assert(same(kAccessLocalWrite, IBV_ACCESS_LOCAL_WRITE) &&
              same(kAccessRemoteWrite, IBV_ACCESS_REMOTE_WRITE) &&
              same(kAccessRemoteRead, IBV_ACCESS_REMOTE_READ) &&
              same(kAccessRemoteAtomic, IBV_ACCESS_REMOTE_ATOMIC) &&
              same(kAccessMwBind, IBV_ACCESS_MW_BIND) &&
              same(kAccessZeroBased, IBV_ACCESS_ZERO_BASED));

static_assert(same(MwType::kType1, IBV_MW_TYPE_1) && same(MwType::kType2, IBV_MW_TYPE_2));

static_assert(same(WrOpcode::kRdmaWrite, IBV_WR_RDMA_WRITE) &&
              same(WrOpcode::kRdmaWriteImm, IBV_WR_RDMA_WRITE_WITH_IMM) &&
              same(WrOpcode::kSend, IBV_WR_SEND) &&
              same(WrOpcode::kSendImm, IBV_WR_SEND_WITH_IMM) &&
              same(WrOpcode::kRdmaRead, IBV_WR_RDMA_READ) &&
              same(WrOpcode::kCmpSwap, IBV_WR_ATOMIC_CMP_AND_SWP) &&
              same(WrOpcode::kFetchAdd, IBV_WR_ATOMIC_FETCH_AND_ADD) &&
              same(WrOpcode::kLocalInv, IBV_WR_LOCAL_INV) &&
              same(WrOpcode::kBindMw, IBV_WR_BIND_MW) &&
              same(WrOpcode::kSendInv, IBV_WR_SEND_WITH_INV) &&
              same(WrOpcode::kAtomicWrite, IBV_WR_ATOMIC_WRITE));

#if TBT_VERBS_HAS_FLUSH
static_assert(same(kAccessFlushGlobal, IBV_ACCESS_FLUSH_GLOBAL) &&
              same(kAccessFlushPersistent, IBV_ACCESS_FLUSH_PERSISTENT) &&
              same(WrOpcode::kFlush, IBV_WR_FLUSH) && same(WcOpcode::kFlush, IBV_WC_FLUSH));
static_assert(IBV_FLUSH_GLOBAL == 1 && IBV_FLUSH_PERSISTENT == 2 && IBV_FLUSH_RANGE == 0 &&
              IBV_FLUSH_MR == 1);
#endif

static_assert(same(kSendFence, IBV_SEND_FENCE) && same(kSendSignaled, IBV_SEND_SIGNALED) &&
              same(kSendSolicited, IBV_SEND_SOLICITED) && same(kSendInline, IBV_SEND_INLINE));

static_assert(
    same(WcStatus::kSuccess, IBV_WC_SUCCESS) && same(WcStatus::kLocLen, IBV_WC_LOC_LEN_ERR) &&
    same(WcStatus::kLocQpOp, IBV_WC_LOC_QP_OP_ERR) &&
    same(WcStatus::kLocProt, IBV_WC_LOC_PROT_ERR) &&
    same(WcStatus::kWrFlush, IBV_WC_WR_FLUSH_ERR) && same(WcStatus::kMwBind, IBV_WC_MW_BIND_ERR) &&
    same(WcStatus::kBadResp, IBV_WC_BAD_RESP_ERR) &&
    same(WcStatus::kLocAccess, IBV_WC_LOC_ACCESS_ERR) &&
    same(WcStatus::kRemInvReq, IBV_WC_REM_INV_REQ_ERR) &&
    same(WcStatus::kRemAccess, IBV_WC_REM_ACCESS_ERR) &&
    same(WcStatus::kRemOp, IBV_WC_REM_OP_ERR) && same(WcStatus::kRetryExc, IBV_WC_RETRY_EXC_ERR) &&
    same(WcStatus::kRnrRetryExc, IBV_WC_RNR_RETRY_EXC_ERR) &&
    same(WcStatus::kRemAbort, IBV_WC_REM_ABORT_ERR) && same(WcStatus::kFatal, IBV_WC_FATAL_ERR) &&
    same(WcStatus::kRespTimeout, IBV_WC_RESP_TIMEOUT_ERR) &&
    same(WcStatus::kGeneral, IBV_WC_GENERAL_ERR));

static_assert(same(WcOpcode::kSend, IBV_WC_SEND) && same(WcOpcode::kRdmaWrite, IBV_WC_RDMA_WRITE) &&
              same(WcOpcode::kRdmaRead, IBV_WC_RDMA_READ) &&
              same(WcOpcode::kCmpSwap, IBV_WC_COMP_SWAP) &&
              same(WcOpcode::kFetchAdd, IBV_WC_FETCH_ADD) &&
              same(WcOpcode::kBindMw, IBV_WC_BIND_MW) &&
              same(WcOpcode::kLocalInv, IBV_WC_LOCAL_INV) &&
              same(WcOpcode::kAtomicWrite, IBV_WC_ATOMIC_WRITE) &&
              same(WcOpcode::kRecv, IBV_WC_RECV) &&
              same(WcOpcode::kRecvRdmaImm, IBV_WC_RECV_RDMA_WITH_IMM));

static_assert(same(kWcGrh, IBV_WC_GRH) && same(kWcWithImm, IBV_WC_WITH_IMM) &&
              same(kWcWithInv, IBV_WC_WITH_INV));

static_assert(same(kQpState, IBV_QP_STATE) && same(kQpCurState, IBV_QP_CUR_STATE) &&
              same(kQpEnSqdAsyncNotify, IBV_QP_EN_SQD_ASYNC_NOTIFY) &&
              same(kQpAccessFlags, IBV_QP_ACCESS_FLAGS) && same(kQpPkeyIndex, IBV_QP_PKEY_INDEX) &&
              same(kQpPort, IBV_QP_PORT) && same(kQpQkey, IBV_QP_QKEY) && same(kQpAv, IBV_QP_AV) &&
              same(kQpPathMtu, IBV_QP_PATH_MTU) && same(kQpTimeout, IBV_QP_TIMEOUT) &&
              same(kQpRetryCnt, IBV_QP_RETRY_CNT) && same(kQpRnrRetry, IBV_QP_RNR_RETRY) &&
              same(kQpRqPsn, IBV_QP_RQ_PSN) && same(kQpMaxQpRdAtomic, IBV_QP_MAX_QP_RD_ATOMIC) &&
              same(kQpAltPath, IBV_QP_ALT_PATH) && same(kQpMinRnrTimer, IBV_QP_MIN_RNR_TIMER) &&
              same(kQpSqPsn, IBV_QP_SQ_PSN) &&
              same(kQpMaxDestRdAtomic, IBV_QP_MAX_DEST_RD_ATOMIC) &&
              same(kQpPathMigState, IBV_QP_PATH_MIG_STATE) && same(kQpCap, IBV_QP_CAP) &&
              same(kQpDestQpn, IBV_QP_DEST_QPN));

static_assert(same(AsyncEventType::kCqErr, IBV_EVENT_CQ_ERR) &&
              same(AsyncEventType::kQpFatal, IBV_EVENT_QP_FATAL) &&
              same(AsyncEventType::kQpReqErr, IBV_EVENT_QP_REQ_ERR) &&
              same(AsyncEventType::kQpAccessErr, IBV_EVENT_QP_ACCESS_ERR) &&
              same(AsyncEventType::kCommEst, IBV_EVENT_COMM_EST) &&
              same(AsyncEventType::kSqDrained, IBV_EVENT_SQ_DRAINED) &&
              same(AsyncEventType::kPathMig, IBV_EVENT_PATH_MIG) &&
              same(AsyncEventType::kDeviceFatal, IBV_EVENT_DEVICE_FATAL) &&
              same(AsyncEventType::kPortActive, IBV_EVENT_PORT_ACTIVE) &&
              same(AsyncEventType::kPortErr, IBV_EVENT_PORT_ERR) &&
              same(AsyncEventType::kSrqErr, IBV_EVENT_SRQ_ERR) &&
              same(AsyncEventType::kSrqLimitReached, IBV_EVENT_SRQ_LIMIT_REACHED) &&
              same(AsyncEventType::kQpLastWqeReached, IBV_EVENT_QP_LAST_WQE_REACHED) &&
              same(AsyncEventType::kGidChange, IBV_EVENT_GID_CHANGE));

static_assert(IBV_MTU_256 == 1 && IBV_MTU_4096 == 5);

}  // namespace
}  // namespace tbt
