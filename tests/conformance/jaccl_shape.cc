// A program of JACCL's shape: plain dlsym of sixteen names, one context per connection although all
// are on one device, UC with messages of 512 KiB, two sends and two receives in flight, sgid_index
// 1 with an IPv4-mapped GID. UC has no acknowledgements, so JACCL relies on a sender that waits
// until a receive is posted: in turns one side posts its receives 300 ms late.
#include <dlfcn.h>
#include <infiniband/verbs.h>

#include <memory>
#include <vector>

#include "side_channel.h"

#undef ibv_query_port
#undef ibv_reg_mr

namespace {

using shape::Deadline;
using shape::die;

constexpr uint32_t kConnections = 3;
constexpr uint32_t kInFlight = 2;
constexpr uint32_t kMessageBytes = 512 * 1024;
constexpr uint32_t kRounds = 6;
constexpr uint32_t kPsn = 7;
constexpr uint8_t kSgidIndex = 1;
constexpr size_t kPageBytes = 4096;

template <typename Function>
Function find(const char* name) {
  static void* const library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_GLOBAL);
  void* symbol = library != nullptr ? dlsym(library, name) : nullptr;
  if (symbol == nullptr) die("%s: %s", name, dlerror());
  return reinterpret_cast<Function>(symbol);
}

struct Verbs {
#define JACCL_VERB(name) decltype(&ibv_##name) name = find<decltype(name)>("ibv_" #name)
  JACCL_VERB(get_device_list);
  JACCL_VERB(get_device_name);
  JACCL_VERB(open_device);
  JACCL_VERB(free_device_list);
  JACCL_VERB(close_device);
  JACCL_VERB(alloc_pd);
  JACCL_VERB(dealloc_pd);
  JACCL_VERB(create_qp);
  JACCL_VERB(destroy_qp);
  JACCL_VERB(create_cq);
  JACCL_VERB(destroy_cq);
  JACCL_VERB(query_gid);
  JACCL_VERB(modify_qp);
  JACCL_VERB(reg_mr);
  JACCL_VERB(dereg_mr);
#undef JACCL_VERB
  int (*query_port)(ibv_context*, uint8_t,
                    ibv_port_attr*) = find<decltype(query_port)>("ibv_query_port");
};

struct Address {
  uint16_t lid = 0;
  uint32_t qpn = 0;
  uint32_t psn = kPsn;
  ibv_gid gid{};
};

bool is_ipv4_mapped(const ibv_gid& gid) {
  static constexpr uint8_t kPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(gid.raw, kPrefix, sizeof kPrefix) == 0;
}

// A page-aligned message buffer, registered in one PD.
class Buffer {
 public:
  Buffer(const Verbs& verbs, ibv_pd* pd)
      : verbs_(verbs),
        memory_(static_cast<uint8_t*>(std::aligned_alloc(kPageBytes, kMessageBytes)), &std::free) {
    mr_ = verbs_.reg_mr(pd, memory_.get(), kMessageBytes,
                        IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
    if (mr_ == nullptr) die("reg_mr: %s", std::strerror(errno));
  }
  ~Buffer() {
    if (verbs_.dereg_mr(mr_) != 0) die("dereg_mr");
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  [[nodiscard]] ibv_sge sge() const {
    return {reinterpret_cast<uintptr_t>(memory_.get()), kMessageBytes, mr_->lkey};
  }
  void fill(uint32_t seed) {
    for (uint32_t i = 0; i < kMessageBytes; ++i) memory_.get()[i] = value(seed, i);
  }
  void check(uint32_t seed) const {
    for (uint32_t i = 0; i < kMessageBytes; ++i) {
      if (memory_.get()[i] != value(seed, i)) die("message %x: byte %u is wrong", seed, i);
    }
  }

 private:
  static uint8_t value(uint32_t seed, uint32_t at) {
    return static_cast<uint8_t>((at + seed) * 2654435761u >> 24);
  }

  const Verbs& verbs_;
  std::unique_ptr<uint8_t, decltype(&std::free)> memory_;
  ibv_mr* mr_;
};

class Connection {
 public:
  Connection(const Verbs& verbs, ibv_device* device, uint32_t index)
      : verbs_(verbs), index_(index) {
    context_ = verbs_.open_device(device);
    if (context_ == nullptr) die("open_device: %s", std::strerror(errno));
    pd_ = verbs_.alloc_pd(context_);
    cq_ = verbs_.create_cq(context_, 64, nullptr, nullptr, 0);
    if (pd_ == nullptr || cq_ == nullptr) die("PD or CQ: %s", std::strerror(errno));
    ibv_qp_init_attr attr{};
    attr.send_cq = cq_;
    attr.recv_cq = cq_;
    attr.cap = {.max_send_wr = 32,
                .max_recv_wr = 32,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = 0};
    attr.qp_type = IBV_QPT_UC;
    qp_ = verbs_.create_qp(pd_, &attr);
    if (qp_ == nullptr) die("create_qp: %s", std::strerror(errno));
    for (uint32_t i = 0; i < kInFlight; ++i) {
      send_buffers_.push_back(std::make_unique<Buffer>(verbs_, pd_));
      receive_buffers_.push_back(std::make_unique<Buffer>(verbs_, pd_));
    }
  }
  ~Connection() {
    send_buffers_.clear();
    receive_buffers_.clear();
    if (verbs_.destroy_qp(qp_) != 0 || verbs_.destroy_cq(cq_) != 0 || verbs_.dealloc_pd(pd_) != 0 ||
        verbs_.close_device(context_) != 0) {
      die("an object could not be destroyed");
    }
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void connect(shape::SideChannel& channel) {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_INIT;
    attr.port_num = 1;
    attr.qp_access_flags =
        IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
    modify(attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    const Address peer = channel.exchange(own_address());
    attr = {};
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_1024;
    attr.rq_psn = peer.psn;
    attr.dest_qp_num = peer.qpn;
    attr.ah_attr.dlid = peer.lid;
    attr.ah_attr.port_num = 1;
    if (peer.gid.global.interface_id != 0) {
      attr.ah_attr.is_global = 1;
      attr.ah_attr.grh.hop_limit = 1;
      attr.ah_attr.grh.dgid = peer.gid;
      attr.ah_attr.grh.sgid_index = kSgidIndex;
    }
    modify(attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN);
    attr = {};
    attr.qp_state = IBV_QPS_RTS;
    attr.sq_psn = kPsn;
    modify(attr, IBV_QP_STATE | IBV_QP_SQ_PSN);
  }

  void post_receives() {
    for (uint32_t i = 0; i < kInFlight; ++i) {
      ibv_sge sge = receive_buffers_[i]->sge();
      ibv_recv_wr wr{};
      wr.wr_id = kReceive | i;
      wr.sg_list = &sge;
      wr.num_sge = 1;
      ibv_recv_wr* bad = nullptr;
      if (ibv_post_recv(qp_, &wr, &bad) != 0) die("post_recv");
    }
  }

  void post_sends(uint32_t round, uint32_t sender) {
    for (uint32_t i = 0; i < kInFlight; ++i) {
      send_buffers_[i]->fill(seed(round, sender, i));
      ibv_sge sge = send_buffers_[i]->sge();
      ibv_send_wr wr{};
      wr.wr_id = kSend | i;
      wr.sg_list = &sge;
      wr.num_sge = 1;
      wr.opcode = IBV_WR_SEND;
      wr.send_flags = IBV_SEND_SIGNALED;
      ibv_send_wr* bad = nullptr;
      if (const int code = ibv_post_send(qp_, &wr, &bad); code != 0)
        die("post_send: %s", std::strerror(code));
    }
    sends_left_ = kInFlight;
    receives_left_ = kInFlight;
  }

  // Takes what has completed; true when the round is over here. Receives complete in the order of
  // the messages.
  bool poll(uint32_t round, uint32_t other_side) {
    ibv_wc wc[8];
    const int got = ibv_poll_cq(cq_, 8, wc);
    if (got < 0) die("poll_cq: %d", got);
    for (int i = 0; i < got; ++i) {
      if (wc[i].status != IBV_WC_SUCCESS)
        die("status %d, vendor error 0x%x", wc[i].status, wc[i].vendor_err);
      if ((wc[i].wr_id & kReceive) != 0) {
        const auto buffer = static_cast<uint32_t>(wc[i].wr_id & 0xff);
        if (buffer != kInFlight - receives_left_ || wc[i].byte_len != kMessageBytes)
          die("receive out of order");
        receive_buffers_[buffer]->check(seed(round, other_side, buffer));
        --receives_left_;
      } else {
        --sends_left_;
      }
    }
    return sends_left_ == 0 && receives_left_ == 0;
  }

 private:
  static constexpr uint64_t kSend = 1u << 16;
  static constexpr uint64_t kReceive = 2u << 16;

  [[nodiscard]] uint32_t seed(uint32_t round, uint32_t sender, uint32_t buffer) const {
    return index_ << 24 | round << 16 | sender << 8 | buffer;
  }

  void modify(ibv_qp_attr& attr, int mask) {
    if (const int code = verbs_.modify_qp(qp_, &attr, mask); code != 0) {
      die("modify_qp to state %d: %s", attr.qp_state, std::strerror(code));
    }
  }

  // The LID, and the first IPv4-mapped GID of the table; JACCL gives up without one.
  Address own_address() {
    ibv_port_attr port{};
    if (verbs_.query_port(context_, 1, &port) != 0) die("query_port");
    Address mine{.lid = port.lid, .qpn = qp_->qp_num};
    for (int i = 0; i < port.gid_tbl_len; ++i) {
      if (verbs_.query_gid(context_, 1, i, &mine.gid) != 0) die("query_gid %d", i);
      if (is_ipv4_mapped(mine.gid)) return mine;
    }
    die("the port has no IPv4-mapped GID");
  }

  const Verbs& verbs_;
  uint32_t index_;
  ibv_context* context_ = nullptr;
  ibv_pd* pd_ = nullptr;
  ibv_cq* cq_ = nullptr;
  ibv_qp* qp_ = nullptr;
  std::vector<std::unique_ptr<Buffer>> send_buffers_;
  std::vector<std::unique_ptr<Buffer>> receive_buffers_;
  uint32_t sends_left_ = 0;
  uint32_t receives_left_ = 0;
};

ibv_device* find_device(const Verbs& verbs, ibv_device** list, const char* name) {
  for (; *list != nullptr; ++list) {
    if (std::strcmp(verbs.get_device_name(*list), name) == 0) return *list;
  }
  die("no device %s", name);
}

void run_round(std::vector<std::unique_ptr<Connection>>& connections, uint32_t round, bool server) {
  const bool late = (round % 2 == 0) == server;
  if (late) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  for (auto& connection : connections) {
    connection->post_receives();
    connection->post_sends(round, server ? 1 : 0);
  }
  const Deadline deadline;
  std::vector<bool> done(connections.size());
  for (size_t left = connections.size(); left > 0;
       deadline.check("messages"), std::this_thread::yield()) {
    for (size_t i = 0; i < connections.size(); ++i) {
      if (done[i] || !connections[i]->poll(round, server ? 0 : 1)) continue;
      done[i] = true;
      --left;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const shape::Arguments arguments = shape::parse(argc, argv);
  shape::SideChannel channel = shape::connect(arguments);
  const Verbs verbs;
  int count = 0;
  ibv_device** list = verbs.get_device_list(&count);
  if (list == nullptr) die("no device list: %s", std::strerror(errno));
  std::vector<std::unique_ptr<Connection>> connections;
  for (uint32_t i = 0; i < kConnections; ++i) {
    connections.push_back(
        std::make_unique<Connection>(verbs, find_device(verbs, list, arguments.device), i));
  }
  verbs.free_device_list(list);
  for (auto& connection : connections) connection->connect(channel);
  channel.meet();
  for (uint32_t round = 0; round < kRounds; ++round)
    run_round(connections, round, arguments.server);
  // Nothing is said to the peer at the end, but its last sends must be over before we go.
  channel.meet();
  connections.clear();
  std::printf("jaccl_shape: %u connections, %u rounds of %u messages of %u KiB each way, on %s\n",
              kConnections, kRounds, kInFlight, kMessageBytes / 1024, arguments.device);
}
