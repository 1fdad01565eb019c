// Answers of READs that come before their turn and cannot be placed.
#include "harness.h"

namespace tbt::engine {
namespace {

using wire::Opcode;

// Two READs under way: 1 to `key` of the harness, 2 through a key that goes away.
void post_two(Harness& h) {
  verbs::MemoryRegion region = *h.endpoint->regions().find(h.key);
  const uint32_t second = h.endpoint->register_memory(region)->key;
  h.post(WrOpcode::kRdmaRead, 1, 0, kMtu);
  const Sge sge{h.address(kMtu), kMtu, second};
  SendWr wr;
  wr.wr_id = 2;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = WrOpcode::kRdmaRead;
  wr.flags = kSendSignaled;
  wr.remote_addr = 0x10000;
  wr.rkey = 0x77;
  ASSERT_TRUE(h.try_post(wr).ok());
  h.expect_packet(Opcode::kRcReadRequest);
  h.expect_packet(Opcode::kRcReadRequest);
  h.endpoint->regions().erase(second);
}

TEST(EarlyAnswer, ThatCannotBePlacedFailsItsOwnReadAndNotTheOldest) {
  Harness h;
  post_two(h);
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn + 1), bytes(kMtu, 2));
  h.expect_no_completion();
  // What is missing before it is asked for, though it was not taken itself.
  EXPECT_EQ(h.expect_packet(Opcode::kRcReadRequest).headers.psn, kSqPsn);
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn), bytes(kMtu, 1));
  EXPECT_EQ(h.expect_completion().wr_id, 1u);
  EXPECT_EQ(h.memory[0], std::byte{1});
  // In its turn it is the oldest one, and fails for itself.
  h.receive(h.from_peer(Opcode::kRcReadResponseOnly, kSqPsn + 1), bytes(kMtu, 2));
  const Wc wc = h.expect_completion(WcStatus::kLocProt);
  EXPECT_EQ(wc.wr_id, 2u);
  EXPECT_EQ(wc.vendor_err, kVendorLocalKey);
}

}  // namespace
}  // namespace tbt::engine
