#include "objects.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace tbt::leaks {

namespace {

constexpr int kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                        IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND;
constexpr int64_t kNoWaySeconds = 8;

void must(int code, const char* what) {
  if (code != 0) die(what, code);
}

template <typename T>
T* must(T* made, const char* what) {
  if (made == nullptr) die(what, errno);
  return made;
}

uint16_t lid_of(ibv_context* context) {
  ibv_port_attr port{};
  must(ibv_query_port(context, 1, &port), "query_port");
  return port.lid;
}

}  // namespace

void die(const char* what, int code) {
  std::printf("error %s: %s\n", what, std::strerror(code));
  std::fflush(stdout);
  std::_Exit(1);
}

ibv_qp* Objects::make_qp(ibv_qp_type type, ibv_srq* srq) {
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = cq_;
  init.srq = srq;
  init.qp_type = type;
  init.cap = {.max_send_wr = kDepth,
              .max_recv_wr = kDepth,
              .max_send_sge = 2,
              .max_recv_sge = 2,
              .max_inline_data = 64};
  ibv_qp* qp = must(ibv_create_qp(pd_, &init), "create_qp");
  numbers_.push_back(qp->qp_num);
  return qp;
}

void Objects::to_init(ibv_qp* qp) const {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  attr.port_num = 1;
  attr.qkey = 0x1234;
  attr.qp_access_flags =
      IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
  const int last = qp->qp_type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS;
  must(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | last), "INIT");
}

void Objects::make(std::byte* memory) {
  memory_ = memory;
  pd_ = must(ibv_alloc_pd(context_), "alloc_pd");
  mr_ = must(ibv_reg_mr(pd_, memory, kMemoryBytes, kAccess), "reg_mr");
  if (kind(4, 1)) channel_ = must(ibv_create_comp_channel(context_), "create_comp_channel");
  cq_ = must(ibv_create_cq(context_, 256, nullptr, channel_, 0), "create_cq");
  if (channel_ != nullptr) must(ibv_req_notify_cq(cq_, 0), "req_notify_cq");
  if (kind(4, 2)) {
    ibv_srq_init_attr init{};
    init.attr = {.max_wr = 64, .max_sge = 1, .srq_limit = 0};
    srq_ = must(ibv_create_srq(pd_, &init), "create_srq");
  }
  qp_ = make_qp(IBV_QPT_RC, srq_);
  to_init(qp_);
  make_extras();
}

// In one cycle of sixteen there are none.
void Objects::make_extras() {
  for (uint32_t i = 0; i < kIdlePairs && !kind(16, 15); ++i) {
    constexpr ibv_qp_type kTypes[] = {IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD};
    idle_.push_back(make_qp(kTypes[i % 3], nullptr));
    if (i % 2 == 0) to_init(idle_.back());
  }
  if (kind(4, 3)) window_ = must(ibv_alloc_mw(pd_, IBV_MW_TYPE_1), "alloc_mw");
  if (kind(8, 4)) {
    ibv_td_init_attr td{};
    td_ = must(ibv_alloc_td(context_, &td), "alloc_td");
    ibv_parent_domain_init_attr parent{};
    parent.pd = pd_;
    parent.td = td_;
    parent_ = must(ibv_alloc_parent_domain(context_, &parent), "alloc_parent_domain");
  }
  if (kind(8, 6)) {
    ibv_alloc_dm_attr attr{};
    attr.length = kPart;
    dm_ = must(ibv_alloc_dm(context_, &attr), "alloc_dm");
    dm_mr_ = must(ibv_reg_dm_mr(pd_, dm_, 0, kPart, IBV_ACCESS_ZERO_BASED | IBV_ACCESS_LOCAL_WRITE),
                  "reg_dm_mr");
  }
  if (kind(8, 7)) second_ = must(ibv_open_device(context_->device), "open_device");
}

bool Objects::connect(const PeerInfo& peer) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTR;
  attr.path_mtu = IBV_MTU_2048;
  attr.dest_qp_num = peer.qpn;
  attr.max_dest_rd_atomic = 4;
  attr.min_rnr_timer = 1;
  attr.ah_attr.dlid = peer.lid;
  attr.ah_attr.port_num = 1;
  constexpr int kRtr = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                       IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
  const time_t end = std::time(nullptr) + kNoWaySeconds;
  for (;;) {
    const int code = ibv_modify_qp(qp_, &attr, kRtr);
    if (code == 0) break;
    if (code != ENETUNREACH) die("RTR", code);
    if (std::time(nullptr) > end) return false;
    usleep(200);
  }
  ibv_ah_attr address{};
  address.dlid = peer.lid;
  address.port_num = 1;
  if (kind(8, 5)) ah_ = ibv_create_ah(pd_, &address);  // the cable may have gone again
  attr = {};
  attr.qp_state = IBV_QPS_RTS;
  attr.timeout = 14;
  attr.retry_cnt = 7;
  attr.rnr_retry = 7;
  attr.max_rd_atomic = 4;
  const int code = ibv_modify_qp(qp_, &attr,
                                 IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                     IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
  // A cable that goes right now has put the pair into the error state before.
  ibv_qp_attr now{};
  ibv_qp_init_attr init{};
  must(ibv_query_qp(qp_, &now, IBV_QP_STATE, &init), "query_qp");
  if (now.qp_state == IBV_QPS_ERR) return false;
  must(code, "RTS");
  if (window_ != nullptr) bind_window();
  return true;
}

// Unsignaled: it is done when the first WRITE is. The destruction finds it bound.
void Objects::bind_window() {
  ibv_mw_bind bind{};
  bind.bind_info.mr = mr_;
  bind.bind_info.addr = reinterpret_cast<uintptr_t>(memory_);
  bind.bind_info.length = kPart;
  bind.bind_info.mw_access_flags = IBV_ACCESS_REMOTE_READ;
  must(ibv_bind_mw(qp_, window_, &bind), "bind_mw");
}

PeerInfo Objects::info() const {
  return {.addr = reinterpret_cast<uintptr_t>(memory_),
          .rkey = mr_->rkey,
          .qpn = qp_->qp_num,
          .lid = lid_of(context_)};
}

void Objects::take_event() {
  pollfd waiting{channel_->fd, POLLIN, 0};
  if (::poll(&waiting, 1, 20) <= 0) return;
  ibv_cq* cq = nullptr;
  void* user = nullptr;
  must(ibv_get_cq_event(channel_, &cq, &user), "get_cq_event");
  ibv_ack_cq_events(cq, 1);
  must(ibv_req_notify_cq(cq, 0), "req_notify_cq");
}

int Objects::poll(ibv_wc& wc) {
  int got = ibv_poll_cq(cq_, 1, &wc);
  if (got == 0 && channel_ != nullptr) {
    take_event();
    got = ibv_poll_cq(cq_, 1, &wc);
  }
  if (got < 0) die("poll_cq", -got);
  return got;
}

void Objects::post_receive(uint32_t slot) {
  ibv_sge to{reinterpret_cast<uintptr_t>(memory_) + 3 * kBulkBytes + slot * 64, 64, mr_->lkey};
  ibv_recv_wr wr{};
  wr.wr_id = slot;
  wr.sg_list = &to;
  wr.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  must(srq_ != nullptr ? ibv_post_srq_recv(srq_, &wr, &bad) : ibv_post_recv(qp_, &wr, &bad),
       "post_recv");
}

void Objects::destroy() {
  if (second_ != nullptr) must(ibv_close_device(second_), "close_device");
  if (ah_ != nullptr) must(ibv_destroy_ah(ah_), "destroy_ah");
  if (window_ != nullptr) must(ibv_dealloc_mw(window_), "dealloc_mw");
  for (ibv_qp* qp : idle_) must(ibv_destroy_qp(qp), "destroy_qp");
  must(ibv_destroy_qp(qp_), "destroy_qp");
  if (srq_ != nullptr) must(ibv_destroy_srq(srq_), "destroy_srq");
  must(ibv_destroy_cq(cq_), "destroy_cq");
  if (channel_ != nullptr) must(ibv_destroy_comp_channel(channel_), "destroy_comp_channel");
  if (dm_ != nullptr) {
    must(ibv_dereg_mr(dm_mr_), "dereg_mr");
    must(ibv_free_dm(dm_), "free_dm");
  }
  must(ibv_dereg_mr(mr_), "dereg_mr");
  if (parent_ != nullptr) {
    must(ibv_dealloc_pd(parent_), "dealloc_pd");
    must(ibv_dealloc_td(td_), "dealloc_td");
  }
  must(ibv_dealloc_pd(pd_), "dealloc_pd");
}

}  // namespace tbt::leaks
