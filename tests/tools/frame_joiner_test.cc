// Joining captured frames: whole frames pass, heads wait for their payload, each direction for
// itself.
#include "tbt/frame_joiner.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tbt::tool {
namespace {

std::vector<std::byte> bytes_of(size_t n, int first) {
  std::vector<std::byte> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(first + static_cast<int>(i));
  return bytes;
}

rail::CapturedFrame frame(int64_t time, bool sent, uint8_t sof, uint8_t eof, size_t length) {
  return {time, sent, sof, eof, static_cast<uint32_t>(length)};
}

class JoinerTest : public ::testing::Test {
 protected:
  std::optional<JoinedFrame> add(int64_t time, bool sent, uint8_t sof, uint8_t eof,
                                 const std::vector<std::byte>& bytes) {
    return joiner_.add(frame(time, sent, sof, eof, bytes.size()), bytes);
  }
  FrameJoiner joiner_;
};

TEST_F(JoinerTest, AWholeFrameComesOutAtOnce) {
  const auto bytes = bytes_of(40, 0);
  const auto joined = add(5, true, 1, 1, bytes);
  ASSERT_TRUE(joined);
  EXPECT_EQ(joined->time_ns, 5);
  EXPECT_TRUE(joined->sent);
  ASSERT_TRUE(joined->has_packet());
  EXPECT_TRUE(std::ranges::equal(joined->packet(), std::span(bytes).subspan(8, 28)));
  EXPECT_EQ(joined->check(), 0x24252627u);
  EXPECT_EQ(joiner_.orphans(), 0u);
}

TEST_F(JoinerTest, AHeadWaitsForItsPayload) {
  const auto head = bytes_of(48, 0);
  const auto payload = bytes_of(4096, 100);
  EXPECT_FALSE(add(5, false, 1, 2, head));
  const auto joined = add(6, false, 3, 3, payload);
  ASSERT_TRUE(joined);
  EXPECT_EQ(joined->time_ns, 5);
  EXPECT_EQ(joined->payload.sof, 3);
  const auto packet = joined->packet();
  ASSERT_EQ(packet.size(), 36u + 4096u);
  EXPECT_TRUE(std::ranges::equal(std::span(packet).subspan(36), payload));
  EXPECT_EQ(joiner_.orphans(), 0u);
}

TEST_F(JoinerTest, TheDirectionsDoNotMix) {
  EXPECT_FALSE(add(1, false, 1, 2, bytes_of(48, 0)));
  EXPECT_FALSE(add(2, true, 1, 2, bytes_of(48, 50)));
  const auto received = add(3, false, 3, 3, bytes_of(64, 0));
  const auto is_first = [](const std::optional<JoinedFrame>& joined, int value) {
    return joined && joined->head.bytes[0] == static_cast<std::byte>(value);
  };
  EXPECT_TRUE(is_first(received, 0));
  EXPECT_TRUE(is_first(add(4, true, 3, 3, bytes_of(64, 0)), 50));
  EXPECT_EQ(joiner_.orphans(), 0u);
}

TEST_F(JoinerTest, OrphansAreCountedAndDropped) {
  EXPECT_FALSE(add(1, true, 3, 3, bytes_of(64, 0)));
  EXPECT_EQ(joiner_.orphans(), 1u);
  EXPECT_FALSE(add(2, true, 1, 2, bytes_of(48, 0)));
  EXPECT_TRUE(add(3, true, 1, 1, bytes_of(48, 0)));
  EXPECT_EQ(joiner_.orphans(), 2u);
  EXPECT_FALSE(add(4, true, 3, 3, bytes_of(64, 0)));
  EXPECT_EQ(joiner_.orphans(), 3u);
}

TEST_F(JoinerTest, ControlFramesAndStumpsHaveNoPacket) {
  const auto control = add(1, true, 4, 4, bytes_of(48, 0));
  ASSERT_TRUE(control);
  EXPECT_FALSE(control->has_packet());
  const auto stump = add(1, true, 1, 1, bytes_of(12, 0));
  ASSERT_TRUE(stump);
  EXPECT_FALSE(stump->has_packet());
}

}  // namespace
}  // namespace tbt::tool
