// A program of NCCL's shape: it finds libibverbs by dlopen and each function by dlvsym, and moves
// data as NCCL's InfiniBand transport does. A sender keeps 256 RDMA writes with immediate in
// flight, only the last one signalled; the receiver has posted as many receive requests without any
// buffer, and after each batch flushes by reading from its own memory through a QP that is
// connected to itself.
#include <dlfcn.h>
#include <infiniband/verbs.h>

#include <endian.h>

#include <array>
#include <memory>
#include <vector>

#include "side_channel.h"

#undef ibv_query_port
#undef ibv_reg_mr

namespace {

using shape::Deadline;
using shape::die;

constexpr uint32_t kDepth = 256;
constexpr uint32_t kSlotBytes = 4096;
constexpr uint32_t kRounds = 4;
constexpr size_t kBufferBytes = size_t{kDepth} * kSlotBytes;

template <typename Function>
Function find(void* library, const char* name, const char* version) {
  void* symbol = dlvsym(library, name, version);
  if (symbol == nullptr) die("%s@%s: %s", name, version, dlerror());
  return reinterpret_cast<Function>(symbol);
}

// The functions that NCCL looks up, with the versions it asks for.
struct Verbs {
  void* library = dlopen("libibverbs.so.1", RTLD_NOW);
#define NCCL_VERB(name, version) \
  decltype(&ibv_##name) name = find<decltype(name)>(library, "ibv_" #name, version)
  NCCL_VERB(get_device_list, "IBVERBS_1.1");
  NCCL_VERB(free_device_list, "IBVERBS_1.1");
  NCCL_VERB(get_device_name, "IBVERBS_1.1");
  NCCL_VERB(open_device, "IBVERBS_1.1");
  NCCL_VERB(close_device, "IBVERBS_1.1");
  NCCL_VERB(get_async_event, "IBVERBS_1.1");
  NCCL_VERB(ack_async_event, "IBVERBS_1.1");
  NCCL_VERB(query_device, "IBVERBS_1.1");
  NCCL_VERB(query_gid, "IBVERBS_1.1");
  NCCL_VERB(query_qp, "IBVERBS_1.1");
  NCCL_VERB(alloc_pd, "IBVERBS_1.1");
  NCCL_VERB(dealloc_pd, "IBVERBS_1.1");
  NCCL_VERB(reg_mr, "IBVERBS_1.1");
  NCCL_VERB(reg_mr_iova2, "IBVERBS_1.8");
  NCCL_VERB(reg_dmabuf_mr, "IBVERBS_1.12");
  NCCL_VERB(dereg_mr, "IBVERBS_1.1");
  NCCL_VERB(create_cq, "IBVERBS_1.1");
  NCCL_VERB(destroy_cq, "IBVERBS_1.1");
  NCCL_VERB(create_qp, "IBVERBS_1.1");
  NCCL_VERB(modify_qp, "IBVERBS_1.1");
  NCCL_VERB(destroy_qp, "IBVERBS_1.1");
  NCCL_VERB(query_ece, "IBVERBS_1.10");
  NCCL_VERB(set_ece, "IBVERBS_1.10");
  NCCL_VERB(fork_init, "IBVERBS_1.1");
  NCCL_VERB(event_type_str, "IBVERBS_1.1");
#undef NCCL_VERB
  using QueryPort = int (*)(ibv_context*, uint8_t, ibv_port_attr*);
  QueryPort query_port = find<QueryPort>(library, "ibv_query_port", "IBVERBS_1.1");
};

struct Address {
  uint32_t qpn = 0;
  uint32_t rkey = 0;
  uint64_t buffer = 0;
  uint16_t lid = 0;
};

ibv_context* open_named(const Verbs& verbs, const char* name) {
  int count = 0;
  ibv_device** list = verbs.get_device_list(&count);
  if (list == nullptr) die("no device list: %s", std::strerror(errno));
  ibv_context* context = nullptr;
  for (int i = 0; i < count && context == nullptr; ++i) {
    if (std::strcmp(verbs.get_device_name(list[i]), name) == 0)
      context = verbs.open_device(list[i]);
  }
  verbs.free_device_list(list);
  if (context == nullptr) die("cannot open %s", name);
  return context;
}

class Endpoint {
 public:
  Endpoint(const Verbs& verbs, const char* device)
      : verbs_(verbs), context_(open_named(verbs, device)), memory_(kBufferBytes) {
    pd_ = verbs_.alloc_pd(context_);
    cq_ = verbs_.create_cq(context_, 2 * static_cast<int>(kDepth), nullptr, nullptr, 0);
    if (pd_ == nullptr || cq_ == nullptr) die("PD or CQ: %s", std::strerror(errno));
    const unsigned int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                                IBV_ACCESS_REMOTE_READ | IBV_ACCESS_RELAXED_ORDERING;
    mr_ = verbs_.reg_mr_iova2(pd_, memory_.data(), memory_.size(),
                              reinterpret_cast<uintptr_t>(memory_.data()), access);
    if (mr_ == nullptr) die("reg_mr_iova2: %s", std::strerror(errno));
    data_qp_ = make_qp();
    flush_qp_ = make_qp();
    ibv_port_attr port{};
    if (verbs_.query_port(context_, 1, &port) != 0) die("query_port");
    if (port.state != IBV_PORT_ACTIVE || port.link_layer != IBV_LINK_LAYER_INFINIBAND) {
      die("the port is in state %d, link layer %d", port.state, port.link_layer);
    }
    lid_ = port.lid;
    expect_no_dmabuf_and_no_ece();
  }
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  ~Endpoint() {
    // NCCL's order. Each must succeed: nothing is left in use.
    if (verbs_.destroy_qp(data_qp_) != 0 || verbs_.destroy_qp(flush_qp_) != 0 ||
        verbs_.dereg_mr(mr_) != 0 || verbs_.destroy_cq(cq_) != 0 || verbs_.dealloc_pd(pd_) != 0 ||
        verbs_.close_device(context_) != 0) {
      die("an object could not be destroyed");
    }
  }

  void connect(shape::SideChannel& channel) {
    const Address mine{.qpn = data_qp_->qp_num,
                       .rkey = mr_->rkey,
                       .buffer = reinterpret_cast<uintptr_t>(memory_.data()),
                       .lid = lid_};
    peer_ = channel.exchange(mine);
    bring_up(data_qp_, peer_.qpn, peer_.lid);
    bring_up(flush_qp_, flush_qp_->qp_num, lid_);
  }

  void post_empty_receives() {
    for (uint32_t i = 0; i < kDepth; ++i) {
      ibv_recv_wr wr{};
      wr.wr_id = i;
      ibv_recv_wr* bad = nullptr;
      if (ibv_post_recv(data_qp_, &wr, &bad) != 0) die("post_recv %u", i);
    }
  }

  // 256 writes in one chain, each telling its slot; the last one asks for a completion.
  void send_round(uint32_t round) {
    for (size_t i = 0; i < memory_.size(); ++i) memory_[i] = pattern(round, i);
    std::vector<ibv_send_wr> wrs(kDepth);
    std::vector<ibv_sge> sges(kDepth);
    for (uint32_t i = 0; i < kDepth; ++i) {
      sges[i] = {reinterpret_cast<uintptr_t>(memory_.data()) + size_t{i} * kSlotBytes, kSlotBytes,
                 mr_->lkey};
      wrs[i].wr_id = i;
      wrs[i].next = i + 1 < kDepth ? &wrs[i + 1] : nullptr;
      wrs[i].sg_list = &sges[i];
      wrs[i].num_sge = 1;
      wrs[i].opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
      wrs[i].send_flags = i + 1 < kDepth ? 0 : IBV_SEND_SIGNALED;
      wrs[i].imm_data = htobe32(i);
      wrs[i].wr.rdma.remote_addr = peer_.buffer + size_t{i} * kSlotBytes;
      wrs[i].wr.rdma.rkey = peer_.rkey;
    }
    ibv_send_wr* bad = nullptr;
    if (const int code = ibv_post_send(data_qp_, wrs.data(), &bad); code != 0) {
      die("post_send of %u writes: %s", kDepth, std::strerror(code));
    }
    const ibv_wc wc = next_completion("the last write");
    if (wc.opcode != IBV_WC_RDMA_WRITE || wc.wr_id != kDepth - 1)
      die("unexpected completion of a sender");
  }

  void receive_round(uint32_t round) {
    for (uint32_t i = 0; i < kDepth; ++i) {
      const ibv_wc wc = next_completion("a write with immediate");
      if (wc.opcode != IBV_WC_RECV_RDMA_WITH_IMM || (wc.wc_flags & IBV_WC_WITH_IMM) == 0 ||
          be32toh(wc.imm_data) != i || wc.byte_len != kSlotBytes || wc.qp_num != data_qp_->qp_num) {
        die("receive %u: opcode %d imm %u length %u", i, wc.opcode, be32toh(wc.imm_data),
            wc.byte_len);
      }
    }
    flush();
    for (size_t i = 0; i < memory_.size(); ++i) {
      if (memory_[i] != pattern(round, i)) die("round %u: byte %zu is wrong", round, i);
    }
  }

 private:
  static uint8_t pattern(uint32_t round, size_t at) {
    return static_cast<uint8_t>(at * 31 + at / kSlotBytes + round * 101);
  }

  ibv_qp* make_qp() {
    ibv_qp_init_attr attr{};
    attr.send_cq = cq_;
    attr.recv_cq = cq_;
    attr.qp_type = IBV_QPT_RC;
    attr.cap = {.max_send_wr = 2 * kDepth,
                .max_recv_wr = kDepth,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = 0};
    ibv_qp* qp = verbs_.create_qp(pd_, &attr);
    if (qp == nullptr) die("create_qp: %s", std::strerror(errno));
    return qp;
  }

  void modify(ibv_qp* qp, ibv_qp_attr& attr, int mask, const char* to) {
    if (const int code = verbs_.modify_qp(qp, &attr, mask); code != 0) {
      die("modify_qp to %s: %s", to, std::strerror(code));
    }
  }

  void bring_up(ibv_qp* qp, uint32_t peer_qpn, uint16_t peer_lid) {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_INIT;
    attr.port_num = 1;
    attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
    modify(qp, attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, "INIT");
    attr = {};
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_4096;
    attr.dest_qp_num = peer_qpn;
    attr.max_dest_rd_atomic = 1;
    attr.min_rnr_timer = 12;
    attr.ah_attr.dlid = peer_lid;
    attr.ah_attr.port_num = 1;
    modify(qp, attr,
           IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
               IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
           "RTR");
    attr = {};
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = 20;
    attr.retry_cnt = 7;
    attr.rnr_retry = 7;
    attr.max_rd_atomic = 1;
    modify(qp, attr,
           IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
               IBV_QP_MAX_QP_RD_ATOMIC,
           "RTS");
  }

  ibv_wc next_completion(const char* what) {
    const Deadline deadline;
    ibv_wc wc{};
    for (;;) {
      const int got = ibv_poll_cq(cq_, 1, &wc);
      if (got < 0) die("poll_cq: %d", got);
      if (got == 1) break;
      deadline.check(what);
      std::this_thread::yield();
    }
    if (wc.status != IBV_WC_SUCCESS)
      die("%s: status %d, vendor error 0x%x", what, wc.status, wc.vendor_err);
    return wc;
  }

  void flush() {
    uint32_t local = 0;
    ibv_mr* mr = verbs_.reg_mr(pd_, &local, sizeof local, IBV_ACCESS_LOCAL_WRITE);
    if (mr == nullptr) die("reg_mr: %s", std::strerror(errno));
    ibv_sge sge{reinterpret_cast<uintptr_t>(&local), sizeof local, mr->lkey};
    ibv_send_wr wr{};
    wr.wr_id = 0xf1;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_RDMA_READ;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma.remote_addr = reinterpret_cast<uintptr_t>(memory_.data());
    wr.wr.rdma.rkey = mr_->rkey;
    ibv_send_wr* bad = nullptr;
    if (ibv_post_send(flush_qp_, &wr, &bad) != 0) die("post of the flush");
    const ibv_wc wc = next_completion("the flush");
    if (wc.opcode != IBV_WC_RDMA_READ || wc.wr_id != 0xf1)
      die("the flush completed as something else");
    if (std::memcmp(&local, memory_.data(), sizeof local) != 0)
      die("the flush read something else");
    if (verbs_.dereg_mr(mr) != 0) die("dereg_mr");
  }

  // NCCL goes on without them when they say that they are not supported, and only then.
  void expect_no_dmabuf_and_no_ece() {
    errno = 0;
    ibv_mr* mr = verbs_.reg_dmabuf_mr(pd_, 0, 4096, 0, -1, IBV_ACCESS_LOCAL_WRITE);
    if (mr != nullptr || errno != EOPNOTSUPP) die("reg_dmabuf_mr: errno %d", errno);
    ibv_ece ece{};
    if (const int code = verbs_.query_ece(data_qp_, &ece); code != EOPNOTSUPP)
      die("query_ece: %d", code);
  }

  const Verbs& verbs_;
  ibv_context* context_;
  std::vector<uint8_t> memory_;
  ibv_pd* pd_ = nullptr;
  ibv_cq* cq_ = nullptr;
  ibv_mr* mr_ = nullptr;
  ibv_qp* data_qp_ = nullptr;
  ibv_qp* flush_qp_ = nullptr;
  uint16_t lid_ = 0;
  Address peer_;
};

}  // namespace

int main(int argc, char** argv) {
  const shape::Arguments arguments = shape::parse(argc, argv);
  shape::SideChannel channel = shape::connect(arguments);
  const Verbs verbs;
  verbs.fork_init();
  {
    Endpoint endpoint(verbs, arguments.device);
    endpoint.connect(channel);
    // The client sends in even rounds, the server in odd ones.
    for (uint32_t round = 0; round < kRounds; ++round) {
      const bool sender = (round % 2 == 0) != arguments.server;
      if (!sender) endpoint.post_empty_receives();
      channel.meet();
      if (sender) {
        endpoint.send_round(round);
      } else {
        endpoint.receive_round(round);
      }
      channel.meet();
    }
  }
  std::printf("nccl_shape: %u rounds of %u writes with immediate, %zu bytes each, on %s\n", kRounds,
              kDepth, kBufferBytes, arguments.device);
}
