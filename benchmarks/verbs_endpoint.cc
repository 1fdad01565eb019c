#include "verbs_endpoint.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "measure.h"

namespace tbt::bench {
namespace {

constexpr uint32_t kFirstPsn = 0x123456;
constexpr int kPollBatch = 16;

Channel made(int fd) {
  const int on = 1;
  require(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
  return Channel(fd);
}

sockaddr_in loopback_or(const std::string& host, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  require(inet_pton(AF_INET, host.c_str(), &address.sin_addr) == 1, "address");
  return address;
}

}  // namespace

Channel Channel::listen(uint16_t port) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  const sockaddr_in address = loopback_or("0.0.0.0", port);
  require(listener >= 0, "socket");
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  require(bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "bind");
  require(::listen(listener, 1) == 0, "listen");
  const int fd = accept(listener, nullptr, nullptr);
  require(fd >= 0, "accept");
  close(listener);
  return made(fd);
}

Channel Channel::connect(const std::string& host, uint16_t port) {
  const sockaddr_in address = loopback_or(host, port);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  require(fd >= 0, "socket");
  require(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "connect");
  return made(fd);
}

Channel::~Channel() {
  if (fd_ >= 0) close(fd_);
}

void Channel::send(const void* bytes, size_t size) {
  require(::send(fd_, bytes, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size), "send to the other end");
}

bool Channel::receive(void* bytes, size_t size) {
  return recv(fd_, bytes, size, MSG_WAITALL) == static_cast<ssize_t>(size);
}

struct Endpoint::Address {
  uint64_t in;
  uint64_t out;
  uint32_t rkey;
  uint32_t qpn;
  uint16_t lid;
};

void Endpoint::Free::operator()(std::byte* memory) const { std::free(memory); }

Endpoint::Endpoint(Channel& channel, const std::string& device) {
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(4096, 2 * kBufferBytes)));
  require(memory_ != nullptr, "memory");
  std::memset(memory_.get(), 0, 2 * kBufferBytes);
  open(device);
  create_qp();

  ibv_port_attr port{};
  require(ibv_query_port(context_, 1, &port) == 0, "ibv_query_port");
  channel.put(Address{.in = reinterpret_cast<uint64_t>(in()),
                      .out = reinterpret_cast<uint64_t>(out()),
                      .rkey = mr_->rkey,
                      .qpn = qp_->qp_num,
                      .lid = port.lid});
  Address peer{};
  require(channel.get(peer), "the other end's address");
  connect_qp(peer);
  // Both are ready to receive before either goes on.
  const char ready = 1;
  char answer = 0;
  channel.put(ready);
  require(channel.get(answer), "the other end");
}

Endpoint::~Endpoint() {
  if (qp_ != nullptr) ibv_destroy_qp(qp_);
  if (send_cq_ != nullptr) ibv_destroy_cq(send_cq_);
  if (recv_cq_ != nullptr) ibv_destroy_cq(recv_cq_);
  if (mr_ != nullptr) ibv_dereg_mr(mr_);
  if (pd_ != nullptr) ibv_dealloc_pd(pd_);
  if (context_ != nullptr) ibv_close_device(context_);
}

void Endpoint::open(const std::string& device) {
  int count = 0;
  ibv_device** list = ibv_get_device_list(&count);
  require(list != nullptr && count > 0, "no RDMA device; run me with `tbt run --host N --`");
  for (int i = 0; i < count && context_ == nullptr; ++i) {
    if (device.empty() || device == ibv_get_device_name(list[i])) context_ = ibv_open_device(list[i]);
  }
  ibv_free_device_list(list);
  require(context_ != nullptr, "ibv_open_device");
  ibv_device_attr attributes{};
  require(ibv_query_device(context_, &attributes) == 0, "ibv_query_device");
  reads_max_ = static_cast<uint32_t>(std::clamp(attributes.max_qp_rd_atom, 1, 64));
}

void Endpoint::create_qp() {
  pd_ = ibv_alloc_pd(context_);
  require(pd_ != nullptr, "ibv_alloc_pd");
  const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
  mr_ = ibv_reg_mr(pd_, memory_.get(), 2 * kBufferBytes, access);
  require(mr_ != nullptr, "ibv_reg_mr");
  send_cq_ = ibv_create_cq(context_, kSendDepth, nullptr, nullptr, 0);
  recv_cq_ = ibv_create_cq(context_, kRecvDepth, nullptr, nullptr, 0);
  require(send_cq_ != nullptr && recv_cq_ != nullptr, "ibv_create_cq");
  ibv_qp_init_attr init{};
  init.send_cq = send_cq_;
  init.recv_cq = recv_cq_;
  init.cap = {kSendDepth, kRecvDepth, 1, 1, kInlineBytes};
  init.qp_type = IBV_QPT_RC;
  qp_ = ibv_create_qp(pd_, &init);
  require(qp_ != nullptr, "ibv_create_qp");
  inline_max_ = init.cap.max_inline_data;

  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  attr.port_num = 1;
  attr.qp_access_flags = static_cast<unsigned>(access);
  require(ibv_modify_qp(qp_, &attr,
                        IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
          "to INIT");
}

void Endpoint::connect_qp(const Address& peer) {
  peer_in_ = peer.in;
  peer_out_ = peer.out;
  peer_rkey_ = peer.rkey;
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTR;
  attr.path_mtu = IBV_MTU_4096;
  attr.dest_qp_num = peer.qpn;
  attr.rq_psn = kFirstPsn;
  attr.max_dest_rd_atomic = static_cast<uint8_t>(reads_max_);
  attr.min_rnr_timer = 12;
  attr.ah_attr.dlid = peer.lid;
  attr.ah_attr.port_num = 1;
  require(ibv_modify_qp(qp_, &attr,
                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                            IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) == 0,
          "to RTR");
  attr = {};
  attr.qp_state = IBV_QPS_RTS;
  attr.timeout = 14;
  attr.retry_cnt = 7;
  attr.rnr_retry = 7;
  attr.sq_psn = kFirstPsn;
  attr.max_rd_atomic = static_cast<uint8_t>(reads_max_);
  require(ibv_modify_qp(qp_, &attr,
                        IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                            IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC) == 0,
          "to RTS");
}

void Endpoint::post_recv(size_t bytes) {
  ibv_sge sge{reinterpret_cast<uint64_t>(in()), static_cast<uint32_t>(bytes), mr_->lkey};
  ibv_recv_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  require(ibv_post_recv(qp_, &wr, &bad) == 0, "ibv_post_recv");
}

void Endpoint::post(ibv_wr_opcode opcode, size_t bytes, bool signaled) {
  const bool read = opcode == IBV_WR_RDMA_READ;
  ibv_sge sge{reinterpret_cast<uint64_t>(read ? in() : out()), static_cast<uint32_t>(bytes), mr_->lkey};
  ibv_send_wr wr{};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = opcode;
  if (signaled) wr.send_flags |= IBV_SEND_SIGNALED;
  if (!read && bytes <= inline_max_) wr.send_flags |= IBV_SEND_INLINE;
  wr.wr.rdma.remote_addr = read ? peer_out_ : peer_in_;
  wr.wr.rdma.rkey = peer_rkey_;
  ibv_send_wr* bad = nullptr;
  require(ibv_post_send(qp_, &wr, &bad) == 0, "ibv_post_send");
}

int Endpoint::poll(ibv_cq* cq) {
  ibv_wc completions[kPollBatch];
  const int count = ibv_poll_cq(cq, kPollBatch, completions);
  require(count >= 0, "ibv_poll_cq");
  for (int i = 0; i < count; ++i) {
    if (completions[i].status != IBV_WC_SUCCESS) fail(ibv_wc_status_str(completions[i].status));
  }
  return count;
}

int Endpoint::poll_sends() { return poll(send_cq_); }
int Endpoint::poll_recvs() { return poll(recv_cq_); }

}  // namespace tbt::bench
