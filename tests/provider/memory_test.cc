// Protection domains, memory regions, buffers and address handles.
#include <dlfcn.h>
#include <endian.h>

#include "fixture.h"

#undef ibv_reg_mr

struct ibv_buf;

namespace tbt::provider_test {
namespace {

using MemoryTest = QpFixture;

TEST_F(MemoryTest, RegistrationCarriesRangeIovaAndAccess) {
  char memory[64];
  ibv_mr* mr = ibv_reg_mr_iova(pd, memory, sizeof memory, 0x5000, IBV_ACCESS_LOCAL_WRITE);
  ASSERT_NE(mr, nullptr);
  const auto& seen = control().registrations.back();
  EXPECT_EQ(seen.addr, memory);
  EXPECT_EQ(seen.length, sizeof memory);
  EXPECT_EQ(seen.iova, 0x5000u);
  EXPECT_EQ(seen.access, static_cast<uint32_t>(IBV_ACCESS_LOCAL_WRITE));
  EXPECT_EQ(mr->addr, memory);
  EXPECT_EQ(mr->rkey, mr->lkey + 1);
  EXPECT_EQ(mr->pd, pd);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
}

TEST_F(MemoryTest, OptionalAccessBitsAreMaskedAndZeroBasedMeansIovaZero) {
  char memory[64];
  ibv_mr* mr = ibv_reg_mr_iova2(
      pd, memory, sizeof memory, 7,
      IBV_ACCESS_RELAXED_ORDERING | IBV_ACCESS_ZERO_BASED | IBV_ACCESS_REMOTE_READ);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(control().registrations.back().access, static_cast<uint32_t>(IBV_ACCESS_REMOTE_READ));
  EXPECT_EQ(control().registrations.back().iova, 0u);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
}

TEST_F(MemoryTest, ErrorsComeAsErrnoOrAsReturnValue) {
  char byte;
  errno = 0;
  EXPECT_EQ(ibv_reg_mr(pd, &byte, 0, 0), nullptr);
  EXPECT_EQ(errno, EINVAL);
  control().destroy_error = EBUSY;
  EXPECT_EQ(ibv_dealloc_pd(pd), EBUSY);
  EXPECT_EQ(ibv_destroy_cq(cq), EBUSY);
  EXPECT_EQ(ibv_destroy_qp(qp), EBUSY);
  control().destroy_error = 0;
}

TEST_F(MemoryTest, RightsThatWeDoNotGiveAreToldFromWrongOnes) {
  char memory[64];
  errno = 0;
  EXPECT_EQ(ibv_reg_mr_iova2(pd, memory, sizeof memory, 0, IBV_ACCESS_ON_DEMAND), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_TRUE(control().registrations.empty());
}

TEST_F(MemoryTest, ReregistrationKeepsWhatIsNotChanged) {
  char memory[64];
  char other[32];
  ibv_mr* mr = ibv_reg_mr(pd, memory, sizeof memory, IBV_ACCESS_LOCAL_WRITE);
  const uint32_t old_key = mr->lkey;
  ASSERT_EQ(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_TRANSLATION, nullptr, other, sizeof other, 0), 0);
  EXPECT_EQ(control().registrations.back().addr, other);
  EXPECT_EQ(control().registrations.back().access, static_cast<uint32_t>(IBV_ACCESS_LOCAL_WRITE));
  EXPECT_EQ(mr->lkey, old_key);
  ASSERT_EQ(
      ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_ACCESS, nullptr, nullptr, 0, IBV_ACCESS_REMOTE_READ), 0);
  EXPECT_EQ(control().registrations.back().addr, other);
  EXPECT_EQ(control().registrations.back().access, static_cast<uint32_t>(IBV_ACCESS_REMOTE_READ));
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
}

// Programs for later releases of rdma-core call these; the real library here may be older.
template <typename Function>
Function newer_verb(const char* name, const char* version) {
  return reinterpret_cast<Function>(dlvsym(RTLD_DEFAULT, name, version));
}

TEST_F(MemoryTest, RegistrationByAttributesTakesMemoryAndRefusesDescriptors) {
  struct Attr {
    size_t length;
    int access;
    uint64_t comp_mask;
    uint64_t iova;
    void* addr;
    int fd;
    uint64_t fd_offset;
    void* dmah;
  };
  const auto reg_mr_ex = newer_verb<ibv_mr* (*)(ibv_pd*, Attr*)>("ibv_reg_mr_ex", "IBVERBS_1.15");
  ASSERT_NE(reg_mr_ex, nullptr);
  char memory[64];
  Attr attr{.length = sizeof memory,
            .access = IBV_ACCESS_REMOTE_READ,
            .comp_mask = 1 | 2,
            .iova = 0x7000,
            .addr = memory,
            .fd = -1,
            .fd_offset = 0,
            .dmah = nullptr};
  ibv_mr* mr = reg_mr_ex(pd, &attr);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(control().registrations.back().iova, 0x7000u);
  EXPECT_EQ(control().registrations.back().addr, memory);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
  attr.comp_mask = 1 | 4 | 8;  // a dma-buf
  errno = 0;
  EXPECT_EQ(reg_mr_ex(pd, &attr), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  attr.comp_mask = 1;  // nothing to register
  EXPECT_EQ(reg_mr_ex(pd, &attr), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(MemoryTest, BuffersCanBeRegisteredAndFreed) {
  const auto alloc_buf =
      newer_verb<void* (*)(ibv_pd*, size_t, ibv_buf**)>("ibv_alloc_buf", "IBVERBS_1.17");
  const auto reg_buf_mr = newer_verb<ibv_mr* (*)(ibv_pd*, ibv_buf*, void*, size_t, int)>(
      "ibv_reg_buf_mr", "IBVERBS_1.17");
  const auto free_buf = newer_verb<void (*)(ibv_buf*)>("ibv_free_buf", "IBVERBS_1.17");
  ASSERT_TRUE(alloc_buf != nullptr && reg_buf_mr != nullptr && free_buf != nullptr);
  ibv_buf* buf = nullptr;
  void* memory = alloc_buf(pd, 10000, &buf);
  ASSERT_NE(memory, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 4096, 0u);
  ibv_mr* mr = reg_buf_mr(pd, buf, memory, 10000, IBV_ACCESS_LOCAL_WRITE);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
  free_buf(buf);
}

TEST_F(MemoryTest, AddressVectorsArriveWhole) {
  ibv_ah_attr attr{};
  attr.is_global = 1;
  attr.grh.dgid.raw[15] = 9;
  attr.grh.sgid_index = 1;
  attr.grh.hop_limit = 3;
  attr.grh.traffic_class = 4;
  attr.grh.flow_label = 5;
  attr.dlid = 0x81;
  attr.sl = 2;
  attr.port_num = 1;
  ibv_ah* ah = ibv_create_ah(pd, &attr);
  ASSERT_NE(ah, nullptr);
  const AddressVector& av = control().address_vectors.back();
  EXPECT_TRUE(av.is_global);
  EXPECT_EQ(av.dgid.raw[15], 9);
  EXPECT_EQ(av.sgid_index, 1);
  EXPECT_EQ(av.hop_limit, 3);
  EXPECT_EQ(av.traffic_class, 4);
  EXPECT_EQ(av.flow_label, 5u);
  EXPECT_EQ(av.dlid, 0x81);
  EXPECT_EQ(av.sl, 2);
  EXPECT_EQ(ibv_destroy_ah(ah), 0);
  attr.port_num = 2;
  errno = 0;
  EXPECT_EQ(ibv_create_ah(pd, &attr), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(MemoryTest, AnAddressHandleFromACompletionLeadsBackToItsSender) {
  ibv_wc wc{};
  wc.slid = 0x82;
  wc.sl = 3;
  wc.wc_flags = IBV_WC_GRH;
  ibv_grh grh{};
  grh.version_tclass_flow = htobe32(6u << 28 | 0x12u << 20 | 0x34567);
  grh.hop_limit = 64;
  grh.sgid.raw[0] = 0xaa;
  ASSERT_EQ(ibv_query_gid(context, 1, 1, &grh.dgid), 0);
  ibv_ah_attr attr;
  ASSERT_EQ(ibv_init_ah_from_wc(context, 1, &wc, &grh, &attr), 0);
  EXPECT_EQ(attr.dlid, 0x82);
  EXPECT_EQ(attr.sl, 3);
  EXPECT_EQ(attr.is_global, 1);
  EXPECT_EQ(attr.grh.dgid.raw[0], 0xaa);
  EXPECT_EQ(attr.grh.sgid_index, 1);
  EXPECT_EQ(attr.grh.traffic_class, 0x12);
  EXPECT_EQ(attr.grh.flow_label, 0x34567u);
  grh.dgid.raw[3] ^= 1;  // a GID that is not ours
  EXPECT_EQ(ibv_init_ah_from_wc(context, 1, &wc, &grh, &attr), -1);
  EXPECT_EQ(ibv_create_ah_from_wc(pd, &wc, &grh, 1), nullptr);
  wc.wc_flags = 0;
  ibv_ah* ah = ibv_create_ah_from_wc(pd, &wc, nullptr, 1);
  ASSERT_NE(ah, nullptr);
  EXPECT_FALSE(control().address_vectors.back().is_global);
  EXPECT_EQ(ibv_destroy_ah(ah), 0);
}

}  // namespace
}  // namespace tbt::provider_test
