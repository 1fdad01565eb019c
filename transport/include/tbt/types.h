// The vocabulary of verbs, as plain types. Numeric values equal those of <infiniband/verbs.h>,
// which provider/ asserts, so that nothing is translated twice.
#pragma once

#include <array>
#include <cstdint>

namespace tbt {

struct Gid {
  std::array<uint8_t, 16> raw{};
  bool operator==(const Gid&) const = default;
};

// The two of XRC are the ends of one connection: requests go from kXrcSend (INI) to kXrcRecv (TGT)
// and name the SRQ that they are for.
enum class QpType : uint8_t { kRc = 2, kUc = 3, kUd = 4, kXrcSend = 9, kXrcRecv = 10 };
enum class QpState : uint8_t { kReset, kInit, kRtr, kRts, kSqd, kSqe, kErr };
const char* qp_state_name(QpState state) noexcept;

enum AccessFlags : uint32_t {
  kAccessLocalWrite = 1,
  kAccessRemoteWrite = 2,
  kAccessRemoteRead = 4,
  kAccessRemoteAtomic = 8,
  kAccessMwBind = 16,     // of a region: memory windows may be bound to it
  kAccessZeroBased = 32,  // of a window: its addresses begin at 0
  kAccessFlushGlobal = 256,
  kAccessFlushPersistent = 512,
};

enum class WrOpcode : uint8_t {
  kRdmaWrite = 0,
  kRdmaWriteImm = 1,
  kSend = 2,
  kSendImm = 3,
  kRdmaRead = 4,
  kCmpSwap = 5,
  kFetchAdd = 6,
  kLocalInv = 7,
  kBindMw = 8,
  kSendInv = 9,
  kFlush = 14,
  kAtomicWrite = 15,
};

// A memory window of type 1 is bound by a call of its own and open to every QP of its PD; one of
// type 2 is bound by a work request (2B) and open to the QP that this was posted to.
enum class MwType : uint8_t { kType1 = 1, kType2 = 2 };

enum SendFlags : uint32_t {
  kSendFence = 1,
  kSendSignaled = 2,
  kSendSolicited = 4,
  kSendInline = 8
};

enum class WcStatus : uint8_t {
  kSuccess = 0,
  kLocLen = 1,
  kLocQpOp = 2,
  kLocProt = 4,
  kWrFlush = 5,
  kMwBind = 6,
  kBadResp = 7,
  kLocAccess = 8,
  kRemInvReq = 9,
  kRemAccess = 10,
  kRemOp = 11,
  kRetryExc = 12,
  kRnrRetryExc = 13,
  kRemAbort = 16,
  kFatal = 19,
  kRespTimeout = 20,
  kGeneral = 21,
};
const char* wc_status_name(WcStatus status) noexcept;

enum class WcOpcode : uint8_t {
  kSend = 0,
  kRdmaWrite = 1,
  kRdmaRead = 2,
  kCmpSwap = 3,
  kFetchAdd = 4,
  kBindMw = 5,
  kLocalInv = 6,
  kFlush = 8,
  kAtomicWrite = 9,
  kRecv = 128,
  kRecvRdmaImm = 129,
};
enum WcFlags : uint32_t { kWcGrh = 1, kWcWithImm = 2, kWcWithInv = 8 };

// Why an error completion came: Wc::vendor_err. docs/verbs_coverage.md has the sentences.
enum VendorError : uint32_t {
  kVendorNone = 0,
  kVendorLocalKey =
      0x101,  // lkey unknown, of another PD, without the access, or range outside the MR
  kVendorLocalLength = 0x102,   // message does not fit the receive, or exceeds what the QP can send
  kVendorRetryTimeout = 0x103,  // no answer within timeout x (retry_cnt + 1)
  kVendorPsnRetry = 0x104,      // PSN sequence errors exhausted retry_cnt
  kVendorRnr = 0x105,           // receiver not ready, rnr_retry exhausted
  kVendorPeerProcess = 0x106,   // the peer's process or QP is gone
  kVendorLinkDown = 0x107,      // no cable to the peer is left
  kVendorRemoteNak = 0x108,     // the peer refused: see the status
  kVendorBadResponse = 0x109,   // the peer's answer does not fit the request
  kVendorRemoteKey = 0x10a,     // (responder) rkey, range or access of an incoming request
  kVendorWindow = 0x10b,        // a memory window could not be bound or invalidated so
};

struct Sge {
  uint64_t addr = 0;
  uint32_t length = 0;
  uint32_t lkey = 0;
};

struct Wc {
  uint64_t wr_id = 0;
  WcStatus status = WcStatus::kSuccess;
  WcOpcode opcode = WcOpcode::kSend;
  uint16_t slid = 0;
  uint32_t vendor_err = 0;
  uint32_t byte_len = 0;
  uint32_t imm_be = 0;  // as on the wire; with kWcWithInv the invalidated rkey
  uint32_t qp_num = 0;
  uint32_t src_qp = 0;  // UD
  uint32_t flags = 0;   // WcFlags
  uint8_t sl = 0;
  uint64_t timestamp_ns = 0;  // CLOCK_MONOTONIC, when the completion was made
};

// Where to send to: the verbs address vector.
struct AddressVector {
  bool is_global = false;
  Gid dgid{};
  uint32_t flow_label = 0;
  uint8_t sgid_index = 0;
  uint8_t hop_limit = 0;
  uint8_t traffic_class = 0;
  uint16_t dlid = 0;
  uint8_t sl = 0;
  uint8_t src_path_bits = 0;
  uint8_t static_rate = 0;
  uint8_t port_num = 1;
};

class Ah;

struct SendWr {
  uint64_t wr_id = 0;
  const Sge* sg_list = nullptr;
  uint32_t num_sge = 0;
  WrOpcode opcode = WrOpcode::kSend;
  uint32_t flags = 0;        // SendFlags; with kSendInline the SGEs' lkeys are ignored
  uint32_t imm_be = 0;       // kBindMw: lkey of the region
  uint64_t remote_addr = 0;  // RDMA, atomics, kFlush; kBindMw: address in the region
  uint32_t rkey = 0;  // kBindMw: the window's new key; kLocalInv, kSendInv: the key to invalidate
  uint64_t compare_add = 0;  // compare value, or the addend; kBindMw, kFlush: length; 0 unbinds
  uint64_t swap = 0;         // kBindMw: AccessFlags; kFlush: placement | selectivity << 4
  Ah* ah = nullptr;          // UD
  uint32_t remote_qpn = 0;   // UD; XRC: number of the peer's SRQ
  uint32_t remote_qkey = 0;
};

struct RecvWr {
  uint64_t wr_id = 0;
  const Sge* sg_list = nullptr;
  uint32_t num_sge = 0;
};

struct QpCaps {
  uint32_t max_send_wr = 0;
  uint32_t max_recv_wr = 0;
  uint32_t max_send_sge = 0;
  uint32_t max_recv_sge = 0;
  uint32_t max_inline_data = 0;
};

// Bits of QpAttr that modify() looks at: values of ibv_qp_attr_mask.
enum QpAttrMask : uint32_t {
  kQpState = 1 << 0,
  kQpCurState = 1 << 1,
  kQpEnSqdAsyncNotify = 1 << 2,
  kQpAccessFlags = 1 << 3,
  kQpPkeyIndex = 1 << 4,
  kQpPort = 1 << 5,
  kQpQkey = 1 << 6,
  kQpAv = 1 << 7,
  kQpPathMtu = 1 << 8,
  kQpTimeout = 1 << 9,
  kQpRetryCnt = 1 << 10,
  kQpRnrRetry = 1 << 11,
  kQpRqPsn = 1 << 12,
  kQpMaxQpRdAtomic = 1 << 13,
  kQpAltPath = 1 << 14,
  kQpMinRnrTimer = 1 << 15,
  kQpSqPsn = 1 << 16,
  kQpMaxDestRdAtomic = 1 << 17,
  kQpPathMigState = 1 << 18,
  kQpCap = 1 << 19,
  kQpDestQpn = 1 << 20,
};

struct QpAttr {
  QpState qp_state = QpState::kReset;
  QpState cur_qp_state = QpState::kReset;
  uint8_t path_mtu = 0;  // 1..5 for 256..4096 bytes
  uint32_t qkey = 0;
  uint32_t rq_psn = 0;
  uint32_t sq_psn = 0;
  uint32_t dest_qpn = 0;
  uint32_t access_flags = 0;
  QpCaps cap{};
  AddressVector av{};
  uint16_t pkey_index = 0;
  bool en_sqd_async_notify = false;
  bool sq_draining = false;
  uint8_t max_rd_atomic = 0;
  uint8_t max_dest_rd_atomic = 0;
  uint8_t min_rnr_timer = 0;
  uint8_t port_num = 0;
  uint8_t timeout = 0;
  uint8_t retry_cnt = 0;
  uint8_t rnr_retry = 0;
};

enum class AsyncEventType : uint8_t {
  kCqErr = 0,
  kQpFatal = 1,
  kQpReqErr = 2,
  kQpAccessErr = 3,
  kCommEst = 4,
  kSqDrained = 5,
  kPathMig = 6,
  kDeviceFatal = 8,
  kPortActive = 9,
  kPortErr = 10,
  kSrqErr = 14,
  kSrqLimitReached = 15,
  kQpLastWqeReached = 16,
  kGidChange = 18,
};

// The limits that create calls enforce and query_device reports: one list for both.
namespace limits {
inline constexpr uint32_t kMaxQp = 16384;
inline constexpr uint32_t kMaxQpWr = 16384;
inline constexpr uint32_t kMaxSge = 30;
inline constexpr uint32_t kMaxCq = 65536;
inline constexpr uint32_t kMaxCqe = 1u << 20;
inline constexpr uint32_t kMaxMr = 1u << 20;
inline constexpr uint32_t kMaxMw = 65536;
inline constexpr uint32_t kMaxPd = 65536;
inline constexpr uint32_t kMaxAh = 1u << 20;
inline constexpr uint32_t kMaxSrq = 4096;
inline constexpr uint32_t kMaxSrqWr = 16384;
inline constexpr uint32_t kMaxRdAtomic = 128;
inline constexpr uint32_t kMaxInline = 512;
inline constexpr uint32_t kMaxMessageBytes = 1u << 30;
inline constexpr uint32_t kGidTableLen = 16;
inline constexpr uint32_t kMtuBytesMax = 4096;
}  // namespace limits

}  // namespace tbt
