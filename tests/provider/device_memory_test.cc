// Device memory: allocation, copies by offset, and regions that count from zero.
#include "fixture.h"

namespace tbt::provider_test {
namespace {

constexpr unsigned int kAccess = IBV_ACCESS_ZERO_BASED | IBV_ACCESS_LOCAL_WRITE;

class DeviceMemoryTest : public QpFixture {
 protected:
  void SetUp() override {
    QpFixture::SetUp();
    dm = alloc(100);
    ASSERT_NE(dm, nullptr);
  }
  void TearDown() override {
    EXPECT_EQ(ibv_free_dm(dm), 0);
    QpFixture::TearDown();
  }
  ibv_dm* alloc(size_t length, uint32_t log_align = 0, uint32_t comp_mask = 0) {
    ibv_alloc_dm_attr attr{.length = length, .log_align_req = log_align, .comp_mask = comp_mask};
    errno = 0;
    return ibv_alloc_dm(context, &attr);
  }

  ibv_dm* dm = nullptr;
};

TEST_F(DeviceMemoryTest, WhatIsCopiedInCanBeCopiedOut) {
  char out[8] = {};
  EXPECT_EQ(ibv_memcpy_from_dm(out, dm, 92, 8), 0);
  EXPECT_EQ(std::string(out, 8), std::string(8, '\0')) << "fresh memory is zero";
  EXPECT_EQ(ibv_memcpy_to_dm(dm, 92, "12345678", 8), 0);
  EXPECT_EQ(ibv_memcpy_from_dm(out, dm, 92, 8), 0);
  EXPECT_EQ(std::string(out, 8), "12345678");
}

TEST_F(DeviceMemoryTest, CopiesAreOfWholeWordsInside) {
  char host[128] = {};
  const std::pair<uint64_t, size_t> wrong[] = {
      {1, 4}, {4, 1}, {104, 4}, {0, 104}, {UINT64_MAX - 3, 8}};
  for (const auto& [offset, length] : wrong) {
    EXPECT_EQ(ibv_memcpy_to_dm(dm, offset, host, length), EINVAL) << offset << ' ' << length;
    EXPECT_EQ(ibv_memcpy_from_dm(host, dm, offset, length), EINVAL) << offset << ' ' << length;
  }
}

TEST_F(DeviceMemoryTest, AllocationsHaveTheLimitThatTheDeviceTells) {
  ibv_device_attr_ex attr{};
  ASSERT_EQ(ibv_query_device_ex(context, nullptr, &attr), 0);
  ibv_dm* largest = alloc(attr.max_dm_size, 6);
  ASSERT_NE(largest, nullptr);
  EXPECT_EQ(ibv_free_dm(largest), 0);
  EXPECT_EQ(alloc(attr.max_dm_size + 1), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(alloc(0), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(alloc(64, 40), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(alloc(64, 0, 1), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(DeviceMemoryTest, ARegionCountsFromZeroAndHoldsTheMemory) {
  ASSERT_EQ(ibv_memcpy_to_dm(dm, 20, "abcd", 4), 0);
  ibv_mr* mr = ibv_reg_dm_mr(pd, dm, 20, 80, kAccess | IBV_ACCESS_REMOTE_WRITE);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(mr->addr, nullptr);
  EXPECT_EQ(mr->length, 80u);
  const auto& seen = control().registrations.back();
  EXPECT_EQ(seen.iova, 0u);
  EXPECT_EQ(seen.length, 80u);
  EXPECT_EQ(std::memcmp(seen.addr, "abcd", 4), 0);
  EXPECT_EQ(seen.access, static_cast<uint32_t>(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
  EXPECT_EQ(ibv_free_dm(dm), EBUSY);
  EXPECT_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_ACCESS, nullptr, nullptr, 0, 0),
            IBV_REREG_MR_ERR_INPUT);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
}

TEST_F(DeviceMemoryTest, RegionsOutsideOrWithAnAddressAreRefused) {
  const std::pair<uint64_t, size_t> wrong[] = {{0, 104}, {100, 4}, {UINT64_MAX, 2}};
  for (const auto& [offset, length] : wrong) {
    errno = 0;
    EXPECT_EQ(ibv_reg_dm_mr(pd, dm, offset, length, kAccess), nullptr);
    EXPECT_EQ(errno, EINVAL);
  }
  EXPECT_EQ(ibv_reg_dm_mr(pd, dm, 0, 100, IBV_ACCESS_LOCAL_WRITE), nullptr);
  EXPECT_EQ(errno, EINVAL);
  ibv_mr* nothing = ibv_reg_dm_mr(pd, dm, 0, 0, kAccess);
  ASSERT_NE(nothing, nullptr);
  EXPECT_EQ(ibv_dereg_mr(nothing), 0);
}

}  // namespace
}  // namespace tbt::provider_test
