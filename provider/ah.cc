// Address handles and the translation of address vectors.
#include <endian.h>

#include <cstring>
#include <new>

#include "forward.h"
#include "objects.h"

namespace tbt::provider {
namespace {

// Index of `gid` in the port's table, -1 if it is not there.
int find_gid(ibv_context* context, const ibv_gid& gid) noexcept {
  for (uint32_t index = 0; index < limits::kGidTableLen; ++index) {
    const Gid entry = state_of(context).impl->query_gid(index);
    if (std::memcmp(entry.raw.data(), gid.raw, sizeof gid.raw) == 0) return static_cast<int>(index);
  }
  return -1;
}

// The way back to the sender of a datagram: its GRH with source and destination exchanged.
bool reverse_route(ibv_context* context, const ibv_grh& grh, ibv_ah_attr& attr) noexcept {
  const int sgid_index = find_gid(context, grh.dgid);
  if (sgid_index < 0) return false;
  const uint32_t version_tclass_flow = be32toh(grh.version_tclass_flow);
  attr.is_global = 1;
  attr.grh.dgid = grh.sgid;
  attr.grh.sgid_index = static_cast<uint8_t>(sgid_index);
  attr.grh.flow_label = version_tclass_flow & 0xfffff;
  attr.grh.traffic_class = static_cast<uint8_t>(version_tclass_flow >> 20);
  attr.grh.hop_limit = grh.hop_limit;
  return true;
}

}  // namespace

AddressVector to_address_vector(const ibv_ah_attr& attr) noexcept {
  AddressVector av;
  av.is_global = attr.is_global != 0;
  std::memcpy(av.dgid.raw.data(), attr.grh.dgid.raw, av.dgid.raw.size());
  av.flow_label = attr.grh.flow_label;
  av.sgid_index = attr.grh.sgid_index;
  av.hop_limit = attr.grh.hop_limit;
  av.traffic_class = attr.grh.traffic_class;
  av.dlid = attr.dlid;
  av.sl = attr.sl;
  av.src_path_bits = attr.src_path_bits;
  av.static_rate = attr.static_rate;
  av.port_num = attr.port_num;
  return av;
}

ibv_ah_attr from_address_vector(const AddressVector& av) noexcept {
  ibv_ah_attr attr{};
  attr.is_global = av.is_global ? 1 : 0;
  std::memcpy(attr.grh.dgid.raw, av.dgid.raw.data(), av.dgid.raw.size());
  attr.grh.flow_label = av.flow_label;
  attr.grh.sgid_index = av.sgid_index;
  attr.grh.hop_limit = av.hop_limit;
  attr.grh.traffic_class = av.traffic_class;
  attr.dlid = av.dlid;
  attr.sl = av.sl;
  attr.src_path_bits = av.src_path_bits;
  attr.static_rate = av.static_rate;
  attr.port_num = av.port_num;
  return attr;
}

}  // namespace tbt::provider

using namespace tbt::provider;

TBT_VERB ibv_ah* ibv_create_ah(ibv_pd* pd, ibv_ah_attr* attr) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_create_ah, nullptr, pd, attr);
  if (attr->port_num != kPort) return fail(EINVAL);
  auto ah = std::unique_ptr<Ah>(new (std::nothrow) Ah{});
  if (!ah) return fail(ENOMEM);
  tbt::Result<tbt::Ah*> made = ours(pd).impl->create_ah(to_address_vector(*attr));
  if (!made) return fail(made.error());
  ah->impl = *made;
  ah->context = pd->context;
  ah->pd = pd;
  add_user(pd);
  return ah.release();
}

TBT_VERB int ibv_init_ah_from_wc(ibv_context* context, uint8_t port, ibv_wc* wc, ibv_grh* grh,
                                 ibv_ah_attr* attr) {
  if (!is_ours(context)) TBT_FORWARD(ibv_init_ah_from_wc, EOPNOTSUPP, context, port, wc, grh, attr);
  *attr = {};
  attr->dlid = wc->slid;
  attr->sl = wc->sl;
  attr->src_path_bits = wc->dlid_path_bits;
  attr->port_num = port;
  if ((wc->wc_flags & IBV_WC_GRH) == 0 || reverse_route(context, *grh, *attr)) return 0;
  errno = EINVAL;
  return -1;
}

TBT_VERB ibv_ah* ibv_create_ah_from_wc(ibv_pd* pd, ibv_wc* wc, ibv_grh* grh, uint8_t port) {
  if (!is_ours(pd->context)) TBT_FORWARD(ibv_create_ah_from_wc, nullptr, pd, wc, grh, port);
  ibv_ah_attr attr;
  if (ibv_init_ah_from_wc(pd->context, port, wc, grh, &attr) != 0) return nullptr;
  return ibv_create_ah(pd, &attr);
}

TBT_VERB int ibv_destroy_ah(ibv_ah* ah) {
  if (!is_ours(ah->context)) TBT_FORWARD(ibv_destroy_ah, EOPNOTSUPP, ah);
  if (const tbt::Status status = ours(ah).impl->destroy(); !status) return status.code();
  remove_user(ah->pd);
  delete &ours(ah);
  return 0;
}
