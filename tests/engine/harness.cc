#include "harness.h"

namespace tbt::engine {

std::vector<std::byte> bytes(uint32_t count, uint8_t first) {
  std::vector<std::byte> result(count);
  for (uint32_t i = 0; i < count; ++i) result[i] = static_cast<std::byte>(first + i);
  return result;
}

std::optional<verbs::Path> Harness::resolve(uint8_t, const AddressVector& address, uint32_t) const {
  if (!route_exists) return std::nullopt;
  verbs::Path path;
  path.slid = kLocalLid;
  path.dlid = address.dlid;
  return path;
}

Harness::Harness(const Setup& setup)
    : xrc_(setup.type == QpType::kXrcSend || setup.type == QpType::kXrcRecv) {
  Options options;
  options.uc_drop = setup.uc_drop;
  options.go_back_n = setup.go_back_n;
  endpoint = std::make_unique<Endpoint>(options, static_cast<const Router&>(*this), Rng(1));
  const uint32_t all = kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite |
                       kAccessRemoteAtomic | kAccessFlushGlobal;
  key = endpoint->register_memory({0, all, &pd, address(0), memory.size(), memory.data()})->key;
  if (setup.with_srq) srq = std::make_unique<verbs::SharedReceiveQueue>(&pd, 16, 4, nullptr);
  QpConfig config{kLocalQpn, 0,   setup.type, setup.caps, false,  &pd,
                  &cq,       &cq, srq.get(),  nullptr,    nullptr};
  const bool tgt = setup.type == QpType::kXrcRecv;
  if (tgt) {
    srq = std::make_unique<verbs::SharedReceiveQueue>(&pd, 16, 4, nullptr);
    srq->number = kSrqNumber;
    srq->xrcd = config.xrcd = &xrcd;
    srq->cq = &cq;
    endpoint->add_xrc_srq(*srq);
  }
  qp = *endpoint->create_qp(config);
  const bool rc = setup.type == QpType::kRc;
  const bool ini = setup.type == QpType::kXrcSend;
  const bool ud = setup.type == QpType::kUd;
  QpAttr attr;
  auto to = [&](QpState state, uint32_t mask) {
    if (qp->state == setup.state) return;
    attr.qp_state = state;
    const Status status = endpoint->modify_qp(now, *qp, attr, kQpState | mask);
    ASSERT_TRUE(status.ok()) << status.text();
  };
  attr.port_num = 1;
  attr.access_flags = setup.access;
  attr.qkey = 0x1234;
  to(QpState::kInit, kQpPkeyIndex | kQpPort | (ud ? kQpQkey : kQpAccessFlags));
  attr.path_mtu = 1;
  attr.dest_qpn = kPeerQpn;
  attr.rq_psn = kRqPsn;
  attr.av.dlid = kPeerLid;
  attr.max_dest_rd_atomic = setup.rd_atomic;
  attr.min_rnr_timer = 12;
  to(QpState::kRtr, ud ? 0
                       : kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn |
                             (rc || tgt ? kQpMaxDestRdAtomic | kQpMinRnrTimer : 0));
  attr.sq_psn = setup.sq_psn;
  attr.timeout = setup.timeout;
  attr.retry_cnt = setup.retry_cnt;
  attr.rnr_retry = setup.rnr_retry;
  attr.max_rd_atomic = setup.rd_atomic;
  uint32_t mask = kQpSqPsn;
  if (rc || ini || tgt) mask |= kQpTimeout;
  if (rc || ini) mask |= kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic;
  to(QpState::kRts, mask);
}

void Harness::post_recv(uint64_t wr_id, uint32_t offset, uint32_t length) {
  const Sge sge{address(offset), length, key};
  const RecvWr wr{wr_id, &sge, 1};
  ASSERT_TRUE(
      (srq ? endpoint->post_srq_recv(now, *srq, wr) : endpoint->post_recv(now, *qp, wr)).ok());
}

Status Harness::try_post(const SendWr& wr, const AddressHandle* ah) {
  return endpoint->post_send(now, *qp, wr, ah);
}

void Harness::post(WrOpcode opcode, uint64_t wr_id, uint32_t offset, uint32_t length,
                   uint32_t flags) {
  const Sge sge{address(offset), length, key};
  SendWr wr;
  wr.wr_id = wr_id;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = opcode;
  wr.flags = flags;
  wr.remote_addr = 0x10000;
  wr.rkey = 0x77;
  const Status status = try_post(wr);
  ASSERT_TRUE(status.ok()) << status.text();
}

wire::PacketHeaders Harness::from_peer(wire::Opcode opcode, uint32_t psn) const {
  wire::PacketHeaders headers;
  headers.dlid = kLocalLid;
  headers.slid = kPeerLid;
  headers.opcode = static_cast<uint8_t>(of_service(opcode));
  headers.srq_number = kSrqNumber;
  headers.dest_qp = kLocalQpn;
  headers.psn = psn & wire::kPsnMask;
  headers.ack_req = true;
  headers.va = address(0);
  headers.rkey = key;
  return headers;
}

void Harness::receive(const wire::PacketHeaders& headers, std::vector<std::byte> payload) {
  wire::ParsedPacket packet;
  packet.headers = headers;
  packet.payload_bytes = static_cast<uint32_t>(payload.size());
  endpoint->handle_packet(now, 0, packet, payload);
}

void Harness::receive_ack(uint32_t psn, uint8_t syndrome, uint32_t msn) {
  wire::PacketHeaders headers = from_peer(wire::Opcode::kRcAck, psn);
  headers.ack_req = false;
  headers.syndrome = syndrome;
  headers.msn = msn;
  receive(headers);
}

void Harness::pass(Duration duration) {
  now = now + duration;
  endpoint->handle_timeout(now);
}

Sent Harness::expect_packet(wire::Opcode opcode) {
  TxPacket packet;
  Sent sent;
  if (!endpoint->poll_transmit(now, 0, packet)) {
    ADD_FAILURE() << "nothing is sent, expected "
                  << wire::opcode_info(static_cast<uint8_t>(opcode)).name;
    return sent;
  }
  EXPECT_STREQ(wire::opcode_info(packet.headers.opcode).name,
               wire::opcode_info(static_cast<uint8_t>(of_service(opcode))).name);
  EXPECT_EQ(packet.headers.dlid, kPeerLid);
  EXPECT_EQ(packet.headers.slid, kLocalLid);
  sent.headers = packet.headers;
  for (uint32_t i = 0; i < packet.pieces; ++i) {
    sent.payload.insert(sent.payload.end(), packet.payload[i].begin(), packet.payload[i].end());
  }
  EXPECT_EQ(sent.payload.size(), packet.payload_bytes);
  return sent;
}

void Harness::expect_silence() {
  TxPacket packet;
  EXPECT_FALSE(endpoint->poll_transmit(now, 0, packet))
      << "unexpected " << wire::opcode_info(packet.headers.opcode).name << " psn "
      << packet.headers.psn;
}

Wc Harness::expect_completion(WcStatus status) {
  Wc wc;
  EXPECT_EQ(cq.pop({&wc, 1}), 1u) << "no completion";
  EXPECT_EQ(wc.status, status) << wc_status_name(wc.status);
  return wc;
}

void Harness::expect_no_completion() { EXPECT_EQ(cq.queued(), 0u); }

std::vector<AsyncEventType> Harness::events() {
  std::vector<AsyncEventType> result;
  Event event;
  while (endpoint->poll_event(event)) {
    if (event.kind == Event::Kind::kAsync) result.push_back(event.type);
  }
  return result;
}

void Harness::expect_event(AsyncEventType type) {
  const auto all = events();
  EXPECT_EQ(std::count(all.begin(), all.end(), type), 1);
}

}  // namespace tbt::engine
