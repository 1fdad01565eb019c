// Device list, contexts and attributes.
#include <endian.h>
#include <fcntl.h>

#include "fixture.h"

#undef ibv_query_port

namespace tbt::provider_test {
namespace {

using DeviceTest = Fixture;

TEST_F(DeviceTest, DevicesAreListedWithNameAndGuid) {
  int count = 0;
  ibv_device** list = ibv_get_device_list(&count);
  ASSERT_NE(list, nullptr);
  ASSERT_GE(count, 2);
  EXPECT_EQ(list[count], nullptr);
  EXPECT_STREQ(ibv_get_device_name(list[count - 2]), "tbt0");
  EXPECT_STREQ(ibv_get_device_name(list[count - 1]), "tbt0c0");
  EXPECT_STREQ(list[count - 1]->dev_name, "tbt0c0");
  EXPECT_EQ(be64toh(ibv_get_device_guid(list[count - 2])), 0x0102030405060708u);
  EXPECT_NE(ibv_get_device_index(list[count - 2]), ibv_get_device_index(list[count - 1]));
  EXPECT_EQ(list[count - 1]->node_type, IBV_NODE_CA);
  ibv_free_device_list(list);
}

// qperf frees the array with free().
TEST_F(DeviceTest, TheListIsPlainMallocMemoryAndDevicesOutliveIt) {
  int count = 0;
  ibv_device** list = ibv_get_device_list(&count);
  ibv_device* device = list[count - 1];
  std::free(list);
  ibv_context* second = ibv_open_device(device);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(ibv_close_device(second), 0);
}

TEST_F(DeviceTest, WithoutDevicesTheAnswerIsTheRealLibrarysOwn) {
  control().devices.clear();
  int count = -1;
  ibv_device** list = ibv_get_device_list(&count);
  EXPECT_EQ(count, 0);
  if (list == nullptr) {
    EXPECT_EQ(errno, ENOSYS);
  } else {
    ibv_free_device_list(list);
  }
}

TEST_F(DeviceTest, OpenReportsTheTransportsError) {
  control().open_error = EACCES;
  errno = 0;
  EXPECT_EQ(open("tbt0"), nullptr);
  EXPECT_EQ(errno, EACCES);
}

TEST_F(DeviceTest, DescriptorsAreValidAndCmdFdCannotBeImported) {
  EXPECT_GE(fcntl(context->async_fd, F_GETFL), 0);
  EXPECT_GE(fcntl(context->cmd_fd, F_GETFL), 0);
  EXPECT_GE(context->num_comp_vectors, 1);
  errno = 0;
  EXPECT_EQ(ibv_import_device(context->cmd_fd), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
}

// Many open and close cycles: references and descriptors must not run out.
TEST_F(DeviceTest, OpenAndCloseLeaveNoDescriptor) {
  const int before = dup(0);
  close(before);
  for (int i = 0; i < 2000; ++i) ASSERT_EQ(ibv_close_device(open("tbt0")), 0);
  const int after = dup(0);
  close(after);
  EXPECT_EQ(after, before);
}

TEST_F(DeviceTest, DeviceAttributesAreTheTransportsAndTheLimits) {
  ibv_device_attr attr;
  ASSERT_EQ(ibv_query_device(context, &attr), 0);
  EXPECT_STREQ(attr.fw_ver, "1.2.3");
  EXPECT_EQ(attr.vendor_id, 0x8086u);
  EXPECT_EQ(attr.vendor_part_id, 0x5781u);
  EXPECT_EQ(be64toh(attr.node_guid), 0x0102030405060708u);
  EXPECT_EQ(attr.max_qp_wr, static_cast<int>(limits::kMaxQpWr));
  EXPECT_EQ(attr.max_sge, static_cast<int>(limits::kMaxSge));
  EXPECT_EQ(attr.max_qp_rd_atom, static_cast<int>(limits::kMaxRdAtomic));
  EXPECT_EQ(attr.atomic_cap, IBV_ATOMIC_HCA);
  EXPECT_EQ(attr.phys_port_cnt, 1);
}

TEST_F(DeviceTest, ExtendedDeviceAttributesHaveANanosecondClock) {
  ibv_device_attr_ex attr;
  ASSERT_EQ(ibv_query_device_ex(context, nullptr, &attr), 0);
  EXPECT_EQ(attr.hca_core_clock, 1'000'000u);
  EXPECT_EQ(attr.completion_timestamp_mask, ~uint64_t{0});
  ibv_values_ex values{.comp_mask = IBV_VALUES_MASK_RAW_CLOCK, .raw_clock = {}};
  ASSERT_EQ(ibv_query_rt_values_ex(context, &values), 0);
  EXPECT_EQ(values.raw_clock.tv_sec, 5);
  EXPECT_EQ(values.raw_clock.tv_nsec, 123);
}

// A program built against another release brings a struct of another size.
TEST_F(DeviceTest, ExtendedDeviceAttributesTolerateOtherSizes) {
  verbs_context* view = verbs_get_ctx(context);
  struct {
    ibv_device_attr_ex known;
    uint64_t newer;
  } longer;
  std::memset(&longer, 0xff, sizeof longer);
  ASSERT_EQ(view->query_device_ex(context, nullptr, &longer.known, sizeof longer), 0);
  EXPECT_EQ(longer.newer, 0u);
  ibv_device_attr_ex shorter;
  std::memset(&shorter, 0xff, sizeof shorter);
  ASSERT_EQ(
      view->query_device_ex(context, nullptr, &shorter, offsetof(ibv_device_attr_ex, odp_caps)), 0);
  EXPECT_EQ(shorter.orig_attr.vendor_id, 0x8086u);
  EXPECT_EQ(shorter.odp_caps.general_caps, ~uint64_t{0}) << "written behind the end";
  EXPECT_EQ(view->query_device_ex(context, nullptr, &shorter, 8), EINVAL);
}

TEST_F(DeviceTest, PortAttributesFollowTheLink) {
  ibv_port_attr attr;
  verbs_context* view = verbs_get_ctx(context);
  ASSERT_EQ(view->query_port(context, 1, &attr, sizeof attr), 0);
  EXPECT_EQ(attr.state, IBV_PORT_ACTIVE);
  EXPECT_EQ(attr.phys_state, 5);
  EXPECT_EQ(attr.lid, 0x41);
  EXPECT_EQ(attr.active_mtu, IBV_MTU_4096);
  EXPECT_EQ(attr.link_layer, IBV_LINK_LAYER_INFINIBAND);
  EXPECT_EQ(attr.gid_tbl_len, 16);
  EXPECT_EQ(attr.pkey_tbl_len, 1);
  control().port_active = false;
  ASSERT_EQ(view->query_port(context, 1, &attr, sizeof attr), 0);
  EXPECT_EQ(attr.state, IBV_PORT_DOWN);
  EXPECT_EQ(view->query_port(context, 2, &attr, sizeof attr), EINVAL);
  EXPECT_EQ(view->query_port(context, 0, &attr, sizeof attr), EINVAL);
}

TEST_F(DeviceTest, TheExportedQueryPortWritesOnlyTheOldestMembers) {
  ibv_port_attr attr;
  std::memset(&attr, 0xff, sizeof attr);
  ASSERT_EQ(ibv_query_port(context, 1, reinterpret_cast<_compat_ibv_port_attr*>(&attr)), 0);
  EXPECT_EQ(attr.lid, 0x41);
  EXPECT_EQ(attr.flags, 0);
  EXPECT_EQ(attr.port_cap_flags2, 0xffff);
}

TEST_F(DeviceTest, EveryGidIndexCanBeRead) {
  ibv_gid gid;
  for (int i = 0; i < 16; ++i) ASSERT_EQ(ibv_query_gid(context, 1, i, &gid), 0) << i;
  EXPECT_EQ(gid.global.interface_id, 0u);
  errno = 0;
  EXPECT_EQ(ibv_query_gid(context, 1, 16, &gid), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(ibv_query_gid(context, 1, -1, &gid), -1);
  EXPECT_EQ(ibv_query_gid(context, 2, 0, &gid), -1);
}

TEST_F(DeviceTest, GidEntriesAreTypedAndEmptyOnesHaveNoData) {
  ibv_gid_entry entry;
  ASSERT_EQ(ibv_query_gid_ex(context, 1, 0, &entry, 0), 0);
  EXPECT_EQ(entry.gid_type, static_cast<uint32_t>(IBV_GID_TYPE_IB));
  ASSERT_EQ(ibv_query_gid_ex(context, 1, 1, &entry, 0), 0);
  EXPECT_EQ(entry.gid_type, static_cast<uint32_t>(IBV_GID_TYPE_ROCE_V2));
  EXPECT_EQ(entry.gid_index, 1u);
  EXPECT_EQ(ibv_query_gid_ex(context, 1, 2, &entry, 0), ENODATA);
  ibv_gid_entry table[16];
  ASSERT_EQ(ibv_query_gid_table(context, table, 16, 0), 2);
  EXPECT_EQ(table[1].gid.raw[12], 169);
  EXPECT_EQ(ibv_query_gid_table(context, table, 1, 0), -EINVAL);
}

TEST_F(DeviceTest, TheOnePkeyIsTheDefault) {
  __be16 pkey = 0;
  ASSERT_EQ(ibv_query_pkey(context, 1, 0, &pkey), 0);
  EXPECT_EQ(pkey, 0xffff);
  EXPECT_EQ(ibv_query_pkey(context, 1, 1, &pkey), -1);
  EXPECT_EQ(ibv_get_pkey_index(context, 1, 0xffff), 0);
  EXPECT_EQ(ibv_get_pkey_index(context, 1, htobe16(0x7fff)), -1);
}

// What we do not define is answered by the real library's own defaults, not by a crash.
TEST_F(DeviceTest, VerbsThatWeLackSayThatTheyAreNotSupported) {
  ibv_pd* pd = ibv_alloc_pd(context);
  ibv_xrcd_init_attr xrcd{};
  EXPECT_EQ(ibv_open_xrcd(context, &xrcd), nullptr);
  errno = 0;
  EXPECT_EQ(ibv_import_pd(context, 0), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  errno = 0;
  EXPECT_EQ(ibv_reg_dmabuf_mr(pd, 0, 4096, 0, -1, 0), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(ibv_dealloc_pd(pd), 0);
}

}  // namespace
}  // namespace tbt::provider_test
