#include "pair.h"

namespace tbt::engine {

namespace {

constexpr uint32_t kAll =
    kAccessLocalWrite | kAccessRemoteRead | kAccessRemoteWrite | kAccessRemoteAtomic;

bool carry_one(End& from, End& to) {
  TxPacket packet;
  if (!from.endpoint.poll_transmit(from.now, 0, packet)) return false;
  std::vector<std::byte> payload;
  for (uint32_t i = 0; i < packet.pieces; ++i)
    payload.insert(payload.end(), packet.payload[i].begin(), packet.payload[i].end());
  wire::ParsedPacket received;
  received.headers = packet.headers;
  received.payload_bytes = packet.payload_bytes;
  to.endpoint.handle_packet(to.now, 0, received, payload);
  return true;
}

}  // namespace

End::End(uint16_t lid) : endpoint({}, static_cast<const Router&>(*this), Rng(lid)), lid_(lid) {
  key = endpoint.register_memory({0, kAll, &pd, address(0), memory.size(), memory.data()})->key;
}

std::optional<verbs::Path> End::resolve(uint8_t, const AddressVector& address, uint32_t) const {
  verbs::Path path;
  path.slid = lid_;
  path.dlid = address.dlid;
  path.rail = address.dlid == lid_on_rail_1 ? 1 : 0;
  return path;
}

void End::create(const PairSetup& setup, uint32_t number) {
  QpConfig config;
  config.number = number;
  config.type = setup.type;
  config.caps = {setup.send_depth, setup.receive_depth, 4, 4, 64};
  config.sq_sig_all = setup.sq_sig_all;
  config.pd = &pd;
  config.send_cq = config.recv_cq = &cq;
  qp = *endpoint.create_qp(config);
}

void End::connect(const PairSetup& setup, uint32_t peer, uint16_t peer_lid) {
  const bool rc = setup.type == QpType::kRc;
  QpAttr attr;
  attr.port_num = 1;
  attr.access_flags = kAll;
  attr.path_mtu = setup.mtu;
  attr.dest_qpn = peer;
  attr.av.dlid = peer_lid;
  attr.max_rd_atomic = attr.max_dest_rd_atomic = setup.rd_atomic;
  attr.min_rnr_timer = 1;
  attr.timeout = 14;
  attr.retry_cnt = attr.rnr_retry = 7;
  const struct {
    QpState state;
    uint32_t mask;
  } kSteps[] = {{QpState::kInit, kQpPkeyIndex | kQpPort | kQpAccessFlags},
                {QpState::kRtr, kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn |
                                    (rc ? kQpMaxDestRdAtomic | kQpMinRnrTimer : 0)},
                {QpState::kRts,
                 kQpSqPsn | (rc ? kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic : 0)}};
  for (const auto& step : kSteps) {
    attr.qp_state = step.state;
    const Status status = endpoint.modify_qp(now, *qp, attr, kQpState | step.mask);
    ASSERT_TRUE(status.ok()) << status.text();
  }
}

void End::modify(QpState state) {
  QpAttr attr;
  attr.qp_state = state;
  const Status status = endpoint.modify_qp(now, *qp, attr, kQpState);
  ASSERT_TRUE(status.ok()) << status.text();
}

Status End::post_recv(uint64_t wr_id, uint32_t offset, uint32_t length) {
  const Sge sge{address(offset), length, key};
  return endpoint.post_recv(now, *qp, {wr_id, &sge, 1});
}

Wc End::completion() {
  Wc wc;
  EXPECT_EQ(cq.pop({&wc, 1}), 1u) << "no completion";
  return wc;
}

Pair::Pair(const PairSetup& setup) {
  constexpr uint32_t kNumberOfA = 0x40010;
  constexpr uint32_t kNumberOfB = 0x80020;
  a.create(setup, kNumberOfA);
  b.create(setup, kNumberOfB);
  a.connect(setup, kNumberOfB, 128);
  b.connect(setup, kNumberOfA, 64);
}

uint32_t Pair::carry(uint32_t most) {
  uint32_t count = 0;
  while (count < most && (carry_one(a, b) || carry_one(b, a))) ++count;
  return count;
}

void Pair::post(WrOpcode opcode, uint64_t wr_id, uint32_t offset, uint32_t length, uint32_t remote,
                uint32_t flags) {
  const Sge sge{a.address(offset), length, a.key};
  SendWr wr;
  wr.wr_id = wr_id;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = opcode;
  wr.flags = flags;
  wr.remote_addr = b.address(remote);
  wr.rkey = b.key;
  const Status status = a.post(wr);
  ASSERT_TRUE(status.ok()) << status.text();
}

}  // namespace tbt::engine
