// What the device and its port say about themselves. Limits come from the same list that the create
// calls enforce.
#include <endian.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "forward.h"
#include "objects.h"

// Exported since rdma-core 62; older headers do not declare it.
TBT_VERB int ibv_query_port_speed(ibv_context* context, uint32_t port, uint64_t* speed_100mbps);

namespace tbt::provider {
namespace {

// Capabilities in the upper half of device_cap_flags_ex, as the kernel numbers them; headers before
// rdma-core 45 have no names for them.
constexpr uint64_t kCapFlushGlobal = uint64_t{1} << 38;
constexpr uint64_t kCapAtomicWrite = uint64_t{1} << 40;

void fill_limits(ibv_device_attr& out) noexcept {
  out.max_mr_size = ~uint64_t{0};
  out.max_qp = limits::kMaxQp;
  out.max_qp_wr = limits::kMaxQpWr;
  out.max_sge = limits::kMaxSge;
  out.max_sge_rd = limits::kMaxSge;
  out.max_cq = limits::kMaxCq;
  out.max_cqe = limits::kMaxCqe;
  out.max_mr = limits::kMaxMr;
  out.max_mw = limits::kMaxMw;
  out.max_pd = limits::kMaxPd;
  out.max_ah = limits::kMaxAh;
  out.max_srq = limits::kMaxSrq;
  out.max_srq_wr = limits::kMaxSrqWr;
  out.max_srq_sge = limits::kMaxSge;
  out.max_qp_rd_atom = limits::kMaxRdAtomic;
  out.max_qp_init_rd_atom = limits::kMaxRdAtomic;
  out.max_res_rd_atom = static_cast<int>(limits::kMaxRdAtomic * limits::kMaxQp);
}

void fill_device(tbt::Context& context, ibv_device_attr& out) noexcept {
  const DeviceAttr attr = context.query_device();
  out = {};
  std::snprintf(out.fw_ver, sizeof out.fw_ver, "%s", attr.fw_version.c_str());
  out.node_guid = htobe64(attr.node_guid);
  out.sys_image_guid = htobe64(attr.sys_image_guid);
  out.vendor_id = attr.vendor_id;
  out.vendor_part_id = attr.vendor_part_id;
  out.hw_ver = 1;
  out.page_size_cap =
      ~uint64_t{0xfff} & 0xffffffff;  // any power of two from 4 KiB: nothing is page-tabled
  out.device_cap_flags = IBV_DEVICE_CURR_QP_STATE_MOD | IBV_DEVICE_RC_RNR_NAK_GEN |
                         IBV_DEVICE_SYS_IMAGE_GUID | IBV_DEVICE_PORT_ACTIVE_EVENT |
                         IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2B |
                         IBV_DEVICE_MEM_MGT_EXTENSIONS | IBV_DEVICE_XRC;
  out.atomic_cap = IBV_ATOMIC_HCA;
  out.max_pkeys = 1;
  out.local_ca_ack_delay = 15;
  out.phys_port_cnt = 1;
  fill_limits(out);
}

void fill_port(tbt::Context& context, ibv_port_attr& out) noexcept {
  constexpr uint8_t kPhysPolling = 2;
  constexpr uint8_t kPhysLinkUp = 5;
  const PortAttr attr = context.query_port();
  out = {};
  out.state = attr.active ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
  out.phys_state = attr.active ? kPhysLinkUp : kPhysPolling;
  static_assert(limits::kMtuBytesMax == 4096);
  out.max_mtu = IBV_MTU_4096;
  out.active_mtu = IBV_MTU_4096;
  out.gid_tbl_len = limits::kGidTableLen;
  out.max_msg_sz = limits::kMaxMessageBytes;
  out.bad_pkey_cntr = attr.bad_pkey_cntr;
  out.qkey_viol_cntr = attr.qkey_viol_cntr;
  out.pkey_tbl_len = 1;
  out.lid = attr.lid;
  out.sm_lid = attr.lid;
  out.max_vl_num = 1;
  out.subnet_timeout = 18;
  out.active_width = attr.active_width;
  out.active_speed = attr.active_speed;
  out.link_layer = IBV_LINK_LAYER_INFINIBAND;
}

// The caller's struct may be older (shorter) or newer (longer) than ours.
template <typename Attr>
void copy_out(const Attr& attr, void* out, size_t size) noexcept {
  const size_t known = std::min(size, sizeof attr);
  std::memcpy(out, &attr, known);
  std::memset(static_cast<std::byte*>(out) + known, 0, size - known);
}

}  // namespace

int query_port(ibv_context* context, uint8_t port, ibv_port_attr* attr, size_t size) noexcept {
  if (port != kPort) return EINVAL;
  ibv_port_attr mine;
  fill_port(*state_of(context).impl, mine);
  copy_out(mine, attr, size);
  return 0;
}

int query_device_ex(ibv_context* context, const ibv_query_device_ex_input* input,
                    ibv_device_attr_ex* attr, size_t size) noexcept {
  if ((input != nullptr && input->comp_mask != 0) || size < sizeof attr->orig_attr) return EINVAL;
  ibv_device_attr_ex mine{};
  fill_device(*state_of(context).impl, mine.orig_attr);
  mine.completion_timestamp_mask = ~uint64_t{0};
  mine.hca_core_clock = 1'000'000;  // kHz: time stamps count nanoseconds
  mine.device_cap_flags_ex = mine.orig_attr.device_cap_flags | kCapAtomicWrite |
                             (TBT_VERBS_HAS_FLUSH ? kCapFlushGlobal : 0);
  mine.phys_port_cnt_ex = 1;
  mine.max_dm_size = kMaxDmBytes;
  mine.cq_mod_caps = {.max_cq_count = 0xffff, .max_cq_period = 0xffff};
  copy_out(mine, attr, size);
  return 0;
}

int query_rt_values(ibv_context* context, ibv_values_ex* values) noexcept {
  const uint32_t wanted = values->comp_mask;
  values->comp_mask = 0;
  if ((wanted & ~static_cast<uint32_t>(IBV_VALUES_MASK_RAW_CLOCK)) != 0) return EINVAL;
  if ((wanted & IBV_VALUES_MASK_RAW_CLOCK) == 0) return 0;
  constexpr uint64_t kNsPerSecond = 1'000'000'000;
  const uint64_t now = state_of(context).impl->now_ns();
  values->raw_clock.tv_sec = static_cast<time_t>(now / kNsPerSecond);
  values->raw_clock.tv_nsec = static_cast<long>(now % kNsPerSecond);
  values->comp_mask = IBV_VALUES_MASK_RAW_CLOCK;
  return 0;
}

}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB int ibv_query_device(ibv_context* context, ibv_device_attr* attr) {
  if (!is_ours(context)) TBT_FORWARD(ibv_query_device, EOPNOTSUPP, context, attr);
  fill_device(*state_of(context).impl, *attr);
  return 0;
}

// The exported function (called by programs that use dlsym) promises only the members of the oldest
// struct.
TBT_VERB int ibv_query_port(ibv_context* context, uint8_t port, _compat_ibv_port_attr* attr) {
  if (!is_ours(context)) TBT_FORWARD(ibv_query_port, EOPNOTSUPP, context, port, attr);
  return query_port(context, port, reinterpret_cast<ibv_port_attr*>(attr),
                    offsetof(ibv_port_attr, port_cap_flags2));
}

TBT_VERB int ibv_query_port_speed(ibv_context* context, uint32_t port, uint64_t* speed_100mbps) {
  if (!is_ours(context)) {
    TBT_FORWARD(ibv_query_port_speed, EOPNOTSUPP, context, port, speed_100mbps);
  }
  if (port != kPort) return EINVAL;
  *speed_100mbps = state_of(context).impl->query_port().speed_100mbps;
  return 0;
}
