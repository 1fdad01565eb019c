// One end of the fault measurements: a plain verbs program, told what to do by lines on its
// standard input. Times are CLOCK_MONOTONIC in nanoseconds, the same clock for all processes of the
// machine.
//
//   qp TIMEOUT RETRY                       -> qp LID QPN ADDR RKEY
//   connect LID QPN ADDR RKEY              -> connected TIME         tries until there is a way
//   write                                  WRITEs without end until one fails; then, once all are
//   done,
//                                          -> failed FIRST LAST STATUS VENDOR_ERR SINCE
//                                                                    SINCE: the last success
//                                                                    before, or the first request
//   once                                   one WRITE -> once TIME STATUS
//   send                                   numbered SENDs without end
//   receive                                takes them; the order is checked
//   gap                                    -> gap NS MESSAGES        longest pause between messages
//   since
//                                                                    the last such line, and how
//                                                                    many came
//   stop                                   -> stopped                after what is outstanding is
//   done destroy                                -> destroyed
#include <infiniband/verbs.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr uint32_t kDepth = 16;
constexpr uint32_t kReceives = 256;
constexpr uint32_t kBytes = 4096;
constexpr int kTurnsPerLook = 64;  // polls between looks at the standard input

int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

[[noreturn]] void die(const char* what) {
  std::printf("error %s: %s\n", what, std::strerror(errno));
  std::fflush(stdout);
  std::exit(1);
}

class Endpoint {
 public:
  explicit Endpoint(const char* device) {
    ibv_device** list = ibv_get_device_list(nullptr);
    for (ibv_device** d = list; d != nullptr && *d != nullptr; ++d) {
      if (std::strcmp(ibv_get_device_name(*d), device) == 0) context_ = ibv_open_device(*d);
    }
    if (context_ == nullptr) die("open");
    if (list != nullptr) ibv_free_device_list(list);
    pd_ = ibv_alloc_pd(context_);
    memory_.resize(size_t{kBytes} * (kReceives + 1));
    mr_ = ibv_reg_mr(pd_, memory_.data(), memory_.size(),
                     IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    cq_ = ibv_create_cq(context_, 2 * (kDepth + kReceives), nullptr, nullptr, 0);
    if (pd_ == nullptr || mr_ == nullptr || cq_ == nullptr) die("set-up");
  }

  void command(const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "qp") {
      words >> timeout_ >> retry_;
      create();
    } else if (verb == "connect") {
      words >> peer_lid_ >> peer_qpn_ >> peer_addr_ >> peer_rkey_;
      connect();
    } else if (verb == "write" || verb == "send") {
      sending_ = true;
      opcode_ = verb == "send" ? IBV_WR_SEND : IBV_WR_RDMA_WRITE;
    } else if (verb == "once") {
      once_ = true;
      opcode_ = IBV_WR_RDMA_WRITE;
      post();
    } else if (verb == "receive") {
      for (uint32_t i = 0; i < kReceives; ++i) post_receive(i);
    } else if (verb == "gap") {
      std::printf("gap %lld %u\n", static_cast<long long>(gap_), messages_);
      gap_ = 0;
      messages_ = 0;
    } else if (verb == "stop") {
      sending_ = false;
      stopping_ = true;
    } else if (verb == "destroy") {
      if (ibv_destroy_qp(qp_) != 0) die("destroy");
      qp_ = nullptr;
      std::printf("destroyed\n");
    } else {
      errno = EINVAL;
      die("command");
    }
    std::fflush(stdout);
  }

  void turn() {
    if (qp_ == nullptr) return;
    if (sending_ && !failed()) {
      if (since_ == 0) since_ = now_ns();
      while (outstanding_ < kDepth) post();
    }
    ibv_wc wc[16];
    const int n = ibv_poll_cq(cq_, 16, wc);
    if (n < 0) die("poll");
    for (int i = 0; i < n; ++i) completed(wc[i]);
    if (outstanding_ != 0) return;
    if (failed() && !once_) {
      std::printf("failed %lld %lld %d %u %lld\n", static_cast<long long>(first_error_),
                  static_cast<long long>(last_), status_, vendor_, static_cast<long long>(since_));
      std::fflush(stdout);
      sending_ = false;
      first_error_ = 0;
    }
    if (stopping_) {
      std::printf("stopped\n");
      std::fflush(stdout);
      stopping_ = false;
    }
  }

  [[nodiscard]] bool busy() const { return qp_ != nullptr; }

 private:
  [[nodiscard]] bool failed() const { return first_error_ != 0; }

  void create() {
    ibv_qp_init_attr init{};
    init.send_cq = init.recv_cq = cq_;
    init.qp_type = IBV_QPT_RC;
    init.sq_sig_all = 1;
    init.cap = {.max_send_wr = kDepth,
                .max_recv_wr = kReceives,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = 0};
    qp_ = ibv_create_qp(pd_, &init);
    if (qp_ == nullptr) die("create_qp");
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_INIT;
    attr.port_num = 1;
    attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
    if (ibv_modify_qp(qp_, &attr,
                      IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) != 0)
      die("INIT");
    ibv_port_attr port{};
    if (ibv_query_port(context_, 1, &port) != 0) die("query_port");
    outstanding_ = 0;
    first_error_ = since_ = 0;
    next_ = expected_ = 0;
    std::printf("qp %u %u %llu %u\n", port.lid, qp_->qp_num,
                static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(memory_.data())),
                mr_->rkey);
  }

  void connect() {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_4096;
    attr.dest_qp_num = peer_qpn_;
    attr.max_dest_rd_atomic = 1;
    attr.min_rnr_timer = 1;
    attr.ah_attr.dlid = static_cast<uint16_t>(peer_lid_);
    attr.ah_attr.port_num = 1;
    constexpr int kRtr = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                         IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    const int64_t end = now_ns() + INT64_C(10000000000);
    while ((errno = ibv_modify_qp(qp_, &attr, kRtr)) != 0) {
      if (errno != ENETUNREACH || now_ns() > end) die("RTR");
      usleep(200);
    }
    attr = {};
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = static_cast<uint8_t>(timeout_);
    attr.retry_cnt = static_cast<uint8_t>(retry_);
    attr.rnr_retry = 7;
    attr.max_rd_atomic = 1;
    if (ibv_modify_qp(qp_, &attr,
                      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                          IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC) != 0)
      die("RTS");
    std::printf("connected %lld\n", static_cast<long long>(now_ns()));
  }

  ibv_sge sge(uint32_t slot) {
    return {reinterpret_cast<uintptr_t>(memory_.data()) + size_t{slot} * kBytes, kBytes, mr_->lkey};
  }

  void post() {
    ibv_sge from = sge(kReceives);
    if (opcode_ == IBV_WR_SEND) {  // the number must not change while it is on its way
      from.length = sizeof next_;
      from.addr += (next_ % (2 * kDepth)) * sizeof next_;
      std::memcpy(reinterpret_cast<void*>(from.addr), &next_, sizeof next_);
      ++next_;
    }
    ibv_send_wr wr{};
    wr.wr_id = kReceives;
    wr.sg_list = &from;
    wr.num_sge = 1;
    wr.opcode = opcode_;
    wr.wr.rdma.remote_addr = peer_addr_;
    wr.wr.rdma.rkey = peer_rkey_;
    ibv_send_wr* bad = nullptr;
    if ((errno = ibv_post_send(qp_, &wr, &bad)) != 0) die("post_send");
    ++outstanding_;
  }

  void post_receive(uint32_t slot) {
    ibv_sge to = sge(slot);
    ibv_recv_wr wr{};
    wr.wr_id = slot;
    wr.sg_list = &to;
    wr.num_sge = 1;
    ibv_recv_wr* bad = nullptr;
    if ((errno = ibv_post_recv(qp_, &wr, &bad)) != 0) die("post_recv");
  }

  void completed(const ibv_wc& wc) {
    if (wc.qp_num != qp_->qp_num) return;
    if (wc.wr_id == kReceives) return sent(wc);
    if (wc.status != IBV_WC_SUCCESS) return;  // flushed at the end
    received(static_cast<uint32_t>(wc.wr_id));
  }

  void sent(const ibv_wc& wc) {
    --outstanding_;
    last_ = now_ns();
    if (once_) {
      once_ = false;
      std::printf("once %lld %d\n", static_cast<long long>(last_), wc.status);
      std::fflush(stdout);
      return;
    }
    if (failed()) return;
    if (wc.status == IBV_WC_SUCCESS) {
      since_ = last_;
      return;
    }
    first_error_ = last_;
    status_ = wc.status;
    vendor_ = wc.vendor_err;
  }

  void received(uint32_t slot) {
    uint64_t number = 0;
    std::memcpy(&number, memory_.data() + size_t{slot} * kBytes, sizeof number);
    if (number != expected_) {
      errno = EPROTO;
      die("a message was lost, doubled or overtaken");
    }
    ++expected_;
    const int64_t now = now_ns();
    if (messages_++ != 0 && now - last_message_ > gap_) gap_ = now - last_message_;
    last_message_ = now;
    post_receive(slot);
  }

  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_mr* mr_ = nullptr;
  ibv_cq* cq_ = nullptr;
  ibv_qp* qp_ = nullptr;
  std::vector<std::byte> memory_;
  unsigned timeout_ = 0, retry_ = 0;
  uint32_t peer_lid_ = 0, peer_qpn_ = 0, peer_rkey_ = 0;
  uint64_t peer_addr_ = 0;
  ibv_wr_opcode opcode_ = IBV_WR_RDMA_WRITE;
  bool sending_ = false, stopping_ = false, once_ = false;
  uint32_t outstanding_ = 0;
  int64_t first_error_ = 0, last_ = 0, since_ = 0;  // of sends
  int status_ = 0;
  uint32_t vendor_ = 0;
  uint64_t next_ = 0, expected_ = 0;  // numbers of messages
  int64_t gap_ = 0, last_message_ = 0;
  uint32_t messages_ = 0;
};

// False at the end of the input. Whole lines are executed as they come.
bool read_commands(Endpoint& endpoint, std::string& rest) {
  char text[512];
  const ssize_t n = read(STDIN_FILENO, text, sizeof text);
  if (n <= 0) return false;
  rest.append(text, static_cast<size_t>(n));
  for (size_t end = 0; (end = rest.find('\n')) != std::string::npos; rest.erase(0, end + 1)) {
    endpoint.command(rest.substr(0, end));
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Endpoint endpoint(argc > 1 ? argv[1] : "tbt0");
  std::printf("ready\n");
  std::fflush(stdout);
  std::string rest;
  for (;;) {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, endpoint.busy() ? 0 : -1) > 0 && !read_commands(endpoint, rest)) return 0;
    for (int i = 0; i < kTurnsPerLook; ++i) endpoint.turn();
  }
}
