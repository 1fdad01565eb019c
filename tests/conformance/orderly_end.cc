// A program that ends in good order while a slow cable is still full of what it wrote. Its peer has
// sent it one message; that the program has taken it must reach the peer, and nothing that was
// posted there may be flushed while the peer comes to its own end.
//
// The server is the one that ends first. It fills the ring with writes, takes the message, and is
// gone: destroys, closes, exits.
#include <infiniband/verbs.h>

#include <array>

#include "side_channel.h"

namespace {

using shape::Deadline;
using shape::die;

constexpr uint32_t kWrites = 256;  // more than ring and cable hold
constexpr uint32_t kWriteBytes = 4096;
constexpr uint32_t kMessageBytes = 64;
// The transport gives the peer 500 ms to come to its end after this program's (engine/endpoint.h).
constexpr std::chrono::milliseconds kGrace(250);

struct Address {
  uint32_t qpn = 0;
  uint32_t rkey = 0;
  uint64_t buffer = 0;
  uint16_t lid = 0;
};

class Endpoint {
 public:
  explicit Endpoint(const char* device) {
    ibv_device** list = ibv_get_device_list(nullptr);
    for (ibv_device** at = list; at != nullptr && *at != nullptr; ++at) {
      if (std::strcmp(ibv_get_device_name(*at), device) == 0) context_ = ibv_open_device(*at);
    }
    if (list != nullptr) ibv_free_device_list(list);
    if (context_ == nullptr) die("cannot open %s", device);
    pd_ = ibv_alloc_pd(context_);
    mr_ = ibv_reg_mr(pd_, memory_.data(), memory_.size(),
                     IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    sends_ = ibv_create_cq(context_, kWrites + 1, nullptr, nullptr, 0);
    receives_ = ibv_create_cq(context_, 4, nullptr, nullptr, 0);
    ibv_qp_init_attr init{};
    init.send_cq = sends_;
    init.recv_cq = receives_;
    init.qp_type = IBV_QPT_RC;
    init.cap = {kWrites + 1, 4, 1, 1, 0};
    qp_ = ibv_create_qp(pd_, &init);
    ibv_port_attr port{};
    if (qp_ == nullptr || ibv_query_port(context_, 1, &port) != 0) die("set-up failed");
    mine_ = {qp_->qp_num, mr_->rkey, reinterpret_cast<uintptr_t>(memory_.data()), port.lid};
  }
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;
  ~Endpoint() {
    if (ibv_destroy_qp(qp_) != 0 || ibv_destroy_cq(sends_) != 0 || ibv_destroy_cq(receives_) != 0 ||
        ibv_dereg_mr(mr_) != 0 || ibv_dealloc_pd(pd_) != 0 || ibv_close_device(context_) != 0) {
      die("an object could not be destroyed");
    }
  }

  void connect(shape::SideChannel& channel) {
    peer_ = channel.exchange(mine_);
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_INIT;
    attr.port_num = 1;
    attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
    modify(attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_4096;
    attr.dest_qp_num = peer_.qpn;
    attr.min_rnr_timer = 12;
    attr.ah_attr.dlid = peer_.lid;
    attr.ah_attr.port_num = 1;
    modify(attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                     IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = 18;
    attr.retry_cnt = 7;
    attr.rnr_retry = 7;
    modify(attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
    post_receive();
  }

  void fill_the_cable() {
    for (uint32_t i = 0; i < kWrites; ++i) post(IBV_WR_RDMA_WRITE, kWriteBytes, 0);
  }
  void send_message() { post(IBV_WR_SEND, kMessageBytes, IBV_SEND_SIGNALED); }
  void await_message() { await(receives_, "the message"); }
  void await_acknowledge() { await(sends_, "the acknowledge of the message"); }

  // The receive that is still posted is flushed at the end of the grace, not before.
  void expect_no_flush() {
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < kGrace) {
      ibv_wc wc{};
      const bool flushed = ibv_poll_cq(receives_, 1, &wc) != 0;
      // Who was off the processor for longer than the grace has seen nothing wrong.
      if (flushed && std::chrono::steady_clock::now() - start < kGrace) {
        die("the receive was flushed at once: status %d", wc.status);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  void modify(ibv_qp_attr& attr, int mask) {
    if (const int code = ibv_modify_qp(qp_, &attr, mask); code != 0) {
      die("modify_qp: %s", std::strerror(code));
    }
  }
  void post_receive() {
    ibv_sge where{mine_.buffer, kMessageBytes, mr_->lkey};
    ibv_recv_wr wr{};
    wr.sg_list = &where;
    wr.num_sge = 1;
    ibv_recv_wr* bad = nullptr;
    if (ibv_post_recv(qp_, &wr, &bad) != 0) die("post_recv");
  }
  void post(ibv_wr_opcode opcode, uint32_t bytes, unsigned int flags) {
    ibv_sge what{mine_.buffer, bytes, mr_->lkey};
    ibv_send_wr wr{};
    wr.sg_list = &what;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = flags;
    wr.wr.rdma.remote_addr = peer_.buffer;
    wr.wr.rdma.rkey = peer_.rkey;
    ibv_send_wr* bad = nullptr;
    if (ibv_post_send(qp_, &wr, &bad) != 0) die("post_send");
  }
  static void await(ibv_cq* cq, const char* what) {
    const Deadline deadline;
    ibv_wc wc{};
    while (ibv_poll_cq(cq, 1, &wc) == 0) {
      deadline.check(what);
      std::this_thread::yield();
    }
    if (wc.status != IBV_WC_SUCCESS) die("%s: %s", what, ibv_wc_status_str(wc.status));
  }

  std::array<uint8_t, kWriteBytes> memory_{};
  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_mr* mr_ = nullptr;
  ibv_cq* sends_ = nullptr;
  ibv_cq* receives_ = nullptr;
  ibv_qp* qp_ = nullptr;
  Address mine_, peer_;
};

}  // namespace

int main(int argc, char** argv) {
  const shape::Arguments arguments = shape::parse(argc, argv);
  shape::SideChannel channel = shape::connect(arguments);
  Endpoint endpoint(arguments.device);
  endpoint.connect(channel);
  channel.meet();
  if (arguments.server) {
    endpoint.fill_the_cable();
    channel.meet();
    endpoint.await_message();
  } else {
    channel.meet();
    endpoint.send_message();
    endpoint.await_acknowledge();
    endpoint.expect_no_flush();
    std::printf("orderly_end: acknowledged, and nothing was flushed\n");
  }
}
