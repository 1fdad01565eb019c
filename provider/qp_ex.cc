// The extended post interface: work requests are collected between ibv_wr_start and
// ibv_wr_complete, then posted as one batch.
//
// All room is taken when the QP is made, from calloc, so that pages of a deep queue are touched
// only when used:
//   requests[i]   the i-th work request of the batch
//   sges          sge_stride entries per request
//   inline_data   inline_stride bytes per request, for data copied by ibv_wr_set_inline_data
// An error while collecting is remembered and returned by ibv_wr_complete. It posts all or nothing.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "send_builder.h"

namespace tbt::provider {

struct SendBuilder {
  std::mutex posting;  // held from start to complete or abort
  SendWr* requests = nullptr;
  Sge* sges = nullptr;
  std::byte* inline_data = nullptr;
  size_t capacity = 0;
  size_t sge_stride = 0;
  size_t inline_stride = 0;
  size_t count = 0;
  int error = 0;

  ~SendBuilder() {
    std::free(requests);
    std::free(sges);
    std::free(inline_data);
  }
  SendBuilder() = default;
  SendBuilder(const SendBuilder&) = delete;
  SendBuilder& operator=(const SendBuilder&) = delete;

  Sge* sges_of_last() const noexcept { return sges + (count - 1) * sge_stride; }
  std::byte* inline_of_last() const noexcept { return inline_data + (count - 1) * inline_stride; }
};

namespace {

SendBuilder& builder_of(ibv_qp_ex* qp) noexcept { return *ours(qp).builder; }

// The next work request, or nullptr when the batch is as deep as the queue or has failed already.
SendWr* add(ibv_qp_ex* qp, WrOpcode opcode) noexcept {
  SendBuilder& builder = builder_of(qp);
  if (builder.error == 0 && builder.count == builder.capacity) builder.error = ENOMEM;
  if (builder.error != 0) return nullptr;
  SendWr& wr = builder.requests[builder.count++];
  wr = {.wr_id = qp->wr_id,
        .opcode = opcode,
        .flags = qp->wr_flags & (kSendFence | kSendSignaled | kSendSolicited)};
  return &wr;
}

// The request that the setters are about, or nullptr.
SendWr* last(SendBuilder& builder) noexcept {
  if (builder.error == 0 && builder.count == 0) builder.error = EINVAL;
  return builder.error == 0 ? &builder.requests[builder.count - 1] : nullptr;
}

void add_remote(ibv_qp_ex* qp, WrOpcode opcode, uint32_t rkey, uint64_t remote_addr) noexcept {
  if (SendWr* wr = add(qp, opcode)) {
    wr->rkey = rkey;
    wr->remote_addr = remote_addr;
  }
}

void wr_send(ibv_qp_ex* qp) { add(qp, WrOpcode::kSend); }

void wr_send_imm(ibv_qp_ex* qp, __be32 imm) {
  if (SendWr* wr = add(qp, WrOpcode::kSendImm)) wr->imm_be = imm;
}

void wr_rdma_write(ibv_qp_ex* qp, uint32_t rkey, uint64_t remote_addr) {
  add_remote(qp, WrOpcode::kRdmaWrite, rkey, remote_addr);
}

void wr_rdma_write_imm(ibv_qp_ex* qp, uint32_t rkey, uint64_t remote_addr, __be32 imm) {
  if (SendWr* wr = add(qp, WrOpcode::kRdmaWriteImm)) {
    wr->rkey = rkey;
    wr->remote_addr = remote_addr;
    wr->imm_be = imm;
  }
}

void wr_rdma_read(ibv_qp_ex* qp, uint32_t rkey, uint64_t remote_addr) {
  add_remote(qp, WrOpcode::kRdmaRead, rkey, remote_addr);
}

void wr_atomic_cmp_swp(ibv_qp_ex* qp, uint32_t rkey, uint64_t remote_addr, uint64_t compare,
                       uint64_t swap) {
  if (SendWr* wr = add(qp, WrOpcode::kCmpSwap)) {
    wr->rkey = rkey;
    wr->remote_addr = remote_addr;
    wr->compare_add = compare;
    wr->swap = swap;
  }
}

void wr_atomic_fetch_add(ibv_qp_ex* qp, uint32_t rkey, uint64_t remote_addr, uint64_t addend) {
  if (SendWr* wr = add(qp, WrOpcode::kFetchAdd)) {
    wr->rkey = rkey;
    wr->remote_addr = remote_addr;
    wr->compare_add = addend;
  }
}

// The bytes are copied now. They lie in the request itself, as inline data that the queue always
// has room for.
void wr_atomic_write(ibv_qp_ex* qp, uint32_t rkey, uint64_t remote_addr, const void* value) {
  SendWr* wr = add(qp, WrOpcode::kAtomicWrite);
  if (wr == nullptr) return;
  wr->rkey = rkey;
  wr->remote_addr = remote_addr;
  wr->flags |= kSendInline;
  std::memcpy(&wr->swap, value, sizeof wr->swap);
  Sge* sge = builder_of(qp).sges_of_last();
  *sge = {.addr = reinterpret_cast<uintptr_t>(&wr->swap), .length = sizeof wr->swap, .lkey = 0};
  wr->sg_list = sge;
  wr->num_sge = 1;
}

#if TBT_VERBS_HAS_FLUSH
void wr_flush(ibv_qp_ex* qp, uint32_t rkey, uint64_t remote_addr, size_t length, uint8_t type,
              uint8_t level) {
  if (SendWr* wr = add(qp, WrOpcode::kFlush)) {
    wr->rkey = rkey;
    wr->remote_addr = remote_addr;
    wr->compare_add = length;
    wr->swap = uint64_t{type} | uint64_t{level} << 4;
  }
}
#endif

void wr_local_inv(ibv_qp_ex* qp, uint32_t rkey) { add_remote(qp, WrOpcode::kLocalInv, rkey, 0); }

void wr_send_inv(ibv_qp_ex* qp, uint32_t rkey) { add_remote(qp, WrOpcode::kSendInv, rkey, 0); }

void wr_bind_mw(ibv_qp_ex* qp, ibv_mw* mw, uint32_t rkey, const ibv_mw_bind_info* info) {
  SendWr* wr = add(qp, WrOpcode::kBindMw);
  if (wr == nullptr) return;
  if (!may_post_bind(mw, rkey)) {
    builder_of(qp).error = EINVAL;
    return;
  }
  fill_bind(*info, rkey, *wr);
}

void wr_set_ud_addr(ibv_qp_ex* qp, ibv_ah* ah, uint32_t remote_qpn, uint32_t remote_qkey) {
  if (SendWr* wr = last(builder_of(qp))) {
    wr->ah = ah != nullptr ? ours(ah).impl : nullptr;
    wr->remote_qpn = remote_qpn;
    wr->remote_qkey = remote_qkey;
  }
}

void wr_set_xrc_srqn(ibv_qp_ex* qp, uint32_t remote_srqn) {
  if (SendWr* wr = last(builder_of(qp))) wr->remote_qpn = remote_srqn;
}

void wr_set_sge_list(ibv_qp_ex* qp, size_t count, const ibv_sge* list) {
  SendBuilder& builder = builder_of(qp);
  SendWr* wr = last(builder);
  if (wr == nullptr) return;
  if (count > builder.sge_stride) {
    builder.error = EINVAL;
    return;
  }
  Sge* sges = builder.sges_of_last();
  std::copy_n(to_sges(list), count, sges);
  wr->sg_list = sges;
  wr->num_sge = static_cast<uint32_t>(count);
}

void wr_set_sge(ibv_qp_ex* qp, uint32_t lkey, uint64_t addr, uint32_t length) {
  const ibv_sge sge{.addr = addr, .length = length, .lkey = lkey};
  wr_set_sge_list(qp, 1, &sge);
}

// The data is copied now: the caller may change it before ibv_wr_complete.
void wr_set_inline_data_list(ibv_qp_ex* qp, size_t count, const ibv_data_buf* list) {
  SendBuilder& builder = builder_of(qp);
  SendWr* wr = last(builder);
  if (wr == nullptr) return;
  std::byte* data = builder.inline_of_last();
  size_t length = 0;
  for (size_t i = 0; i < count; ++i) {
    if (list[i].length > builder.inline_stride - length) {
      builder.error = EINVAL;
      return;
    }
    if (list[i].length > 0) std::memcpy(data + length, list[i].addr, list[i].length);
    length += list[i].length;
  }
  Sge* sge = builder.sges_of_last();
  *sge = {.addr = reinterpret_cast<uintptr_t>(data),
          .length = static_cast<uint32_t>(length),
          .lkey = 0};
  wr->sg_list = sge;
  wr->num_sge = 1;
  wr->flags |= kSendInline;
}

void wr_set_inline_data(ibv_qp_ex* qp, void* addr, size_t length) {
  const ibv_data_buf buf{.addr = addr, .length = length};
  wr_set_inline_data_list(qp, 1, &buf);
}

void wr_start(ibv_qp_ex* qp) {
  SendBuilder& builder = builder_of(qp);
  builder.posting.lock();
  builder.count = 0;
  builder.error = 0;
}

int wr_complete(ibv_qp_ex* qp) {
  SendBuilder& builder = builder_of(qp);
  int code = builder.error;
  if (code == 0 && builder.count > 0) {
    code = ours(qp).impl->post_send_whole({builder.requests, builder.count}).code();
  }
  builder.posting.unlock();
  return code;
}

void wr_abort(ibv_qp_ex* qp) { builder_of(qp).posting.unlock(); }

void set_functions(Qp& qp) noexcept {
  qp.wr_send = wr_send;
  qp.wr_send_imm = wr_send_imm;
  qp.wr_rdma_write = wr_rdma_write;
  qp.wr_rdma_write_imm = wr_rdma_write_imm;
  qp.wr_rdma_read = wr_rdma_read;
  qp.wr_atomic_cmp_swp = wr_atomic_cmp_swp;
  qp.wr_atomic_fetch_add = wr_atomic_fetch_add;
  qp.wr_atomic_write = wr_atomic_write;
#if TBT_VERBS_HAS_FLUSH
  qp.wr_flush = wr_flush;
#endif
  qp.wr_local_inv = wr_local_inv;
  qp.wr_send_inv = wr_send_inv;
  qp.wr_bind_mw = wr_bind_mw;
  qp.wr_set_ud_addr = wr_set_ud_addr;
  qp.wr_set_xrc_srqn = wr_set_xrc_srqn;
  qp.wr_set_sge = wr_set_sge;
  qp.wr_set_sge_list = wr_set_sge_list;
  qp.wr_set_inline_data = wr_set_inline_data;
  qp.wr_set_inline_data_list = wr_set_inline_data_list;
  qp.wr_start = wr_start;
  qp.wr_complete = wr_complete;
  qp.wr_abort = wr_abort;
}

// At least one element, so that a queue without room still has distinct memory.
template <typename T>
T* allocate(size_t count) noexcept {
  return static_cast<T*>(std::calloc(std::max<size_t>(count, 1), sizeof(T)));
}

}  // namespace

uint64_t supported_send_ops(QpType type) noexcept {
  constexpr uint64_t kSends = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
  constexpr uint64_t kWrites = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM;
  constexpr uint64_t kWindows = IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW;
  constexpr uint64_t kReads = IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
                              IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;
#if TBT_VERBS_HAS_FLUSH
  constexpr uint64_t kPlaced = IBV_QP_EX_WITH_ATOMIC_WRITE | IBV_QP_EX_WITH_FLUSH;
#else
  constexpr uint64_t kPlaced = IBV_QP_EX_WITH_ATOMIC_WRITE;
#endif
  switch (type) {
    case QpType::kRc:
      return kSends | kWrites | kReads | kWindows | kPlaced | IBV_QP_EX_WITH_SEND_WITH_INV;
    case QpType::kUc:
      return kSends | kWrites | kWindows;
    case QpType::kUd:
      return kSends;
    case QpType::kXrcSend:
      return kSends | kWrites | kReads | kWindows;
    case QpType::kXrcRecv:
      break;
  }
  return 0;
}

bool attach_send_builder(Qp& qp, const QpCaps& granted) noexcept {
  auto builder = std::unique_ptr<SendBuilder>(new (std::nothrow) SendBuilder);
  if (!builder) return false;
  builder->capacity = granted.max_send_wr;
  builder->sge_stride = std::max(granted.max_send_sge, 1u);
  builder->inline_stride = granted.max_inline_data;
  builder->requests = allocate<SendWr>(builder->capacity);
  builder->sges = allocate<Sge>(builder->capacity * builder->sge_stride);
  builder->inline_data = allocate<std::byte>(builder->capacity * builder->inline_stride);
  if (!builder->requests || !builder->sges || !builder->inline_data) return false;
  qp.builder = builder.release();
  set_functions(qp);
  return true;
}

void delete_send_builder(SendBuilder* builder) noexcept { delete builder; }

}  // namespace tbt::provider
