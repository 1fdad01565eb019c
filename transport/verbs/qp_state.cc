#include "verbs/qp_state.h"

namespace tbt::verbs {

namespace {

using enum QpState;

constexpr uint32_t kAlways = kQpState | kQpCurState;

// Indexed by service().
struct Masks {
  uint32_t of[5];
};

struct Edge {
  QpState from;
  QpState to;
  Masks required;  // kNoEdge: the service does not have this edge
  Masks optional;
};

constexpr uint32_t kNoEdge = 0xffffffff;
constexpr uint32_t kInitConnected = kQpPkeyIndex | kQpPort | kQpAccessFlags;
constexpr uint32_t kInitDatagram = kQpPkeyIndex | kQpPort | kQpQkey;
constexpr uint32_t kRtrUc = kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn;
constexpr uint32_t kRtrRc = kRtrUc | kQpMaxDestRdAtomic | kQpMinRnrTimer;
constexpr uint32_t kRtsRc = kQpSqPsn | kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic;
constexpr uint32_t kRtsTgt = kQpSqPsn | kQpTimeout;
constexpr uint32_t kRtrMay = kQpAccessFlags | kQpPkeyIndex;
// Each end of XRC may be given the other's attributes too, as programs do that treat both as RC.
constexpr uint32_t kRtrIniMay = kRtrMay | kQpMaxDestRdAtomic | kQpMinRnrTimer;
constexpr uint32_t kLiveUc = kQpAccessFlags | kQpPathMigState;
constexpr uint32_t kLiveRc = kLiveUc | kQpMinRnrTimer;
constexpr uint32_t kSqdUc = kQpAv | kQpAccessFlags | kQpPkeyIndex | kQpPathMigState;
constexpr uint32_t kSqdIni =
    kSqdUc | kQpPort | kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic;
constexpr uint32_t kSqdTgt = kSqdUc | kQpPort | kQpTimeout | kQpMaxDestRdAtomic | kQpMinRnrTimer;
constexpr uint32_t kSqdRc = kSqdIni | kSqdTgt;

constexpr Masks kNothing{{0, 0, 0, 0, 0}};
constexpr Masks kLive{{kLiveRc, kLiveUc, kQpQkey, kLiveUc, kLiveRc}};
constexpr Masks kInitAll{
    {kInitConnected, kInitConnected, kInitDatagram, kInitConnected, kInitConnected}};
constexpr uint32_t kAsync = kQpEnSqdAsyncNotify;

constexpr Edge kEdges[] = {
    {kReset, kInit, kInitAll, kNothing},
    {kInit, kInit, kNothing, kInitAll},
    {kInit,
     kRtr,
     {{kRtrRc, kRtrUc, 0, kRtrUc, kRtrRc}},
     {{kRtrMay, kRtrMay, kQpPkeyIndex | kQpQkey, kRtrIniMay, kRtrMay}}},
    {kRtr,
     kRts,
     {{kRtsRc, kQpSqPsn, kQpSqPsn, kRtsRc, kRtsTgt}},
     {{kLiveRc, kLiveUc, kQpQkey, kLiveUc | kQpMinRnrTimer, kLiveRc | kRtsRc}}},
    {kRts, kRts, kNothing, kLive},
    {kRts, kSqd, kNothing, {{kAsync, kAsync, kAsync, kAsync, kAsync}}},
    {kSqd, kRts, kNothing, kLive},
    {kSqd, kSqd, kNothing, {{kSqdRc, kSqdUc, kQpPkeyIndex | kQpQkey, kSqdIni, kSqdTgt}}},
    {kSqe, kRts, {{kNoEdge, 0, 0, kNoEdge, kNoEdge}}, {{0, kQpAccessFlags, kQpQkey, 0, 0}}},
};

int service(QpType type) noexcept {
  switch (type) {
    case QpType::kRc:
      return 0;
    case QpType::kUc:
      return 1;
    case QpType::kUd:
      return 2;
    case QpType::kXrcSend:
      return 3;
    case QpType::kXrcRecv:
      return 4;
  }
  return 0;
}

const Edge* find_edge(QpState from, QpState to) noexcept {
  for (const Edge& edge : kEdges) {
    if (edge.from == from && edge.to == to) return &edge;
  }
  return nullptr;
}

constexpr Status invalid(const char* text) noexcept { return Status(EINVAL, text); }

Status check_edge(QpType type, QpState from, QpState to, uint32_t mask) noexcept {
  const uint32_t given = mask & ~kAlways;
  if (to == kReset || (to == kErr && from != kReset)) {
    return given == 0 ? Status() : invalid("no attribute but the state may be given here");
  }
  const Edge* edge = find_edge(from, to);
  if (edge == nullptr || edge->required.of[service(type)] == kNoEdge)
    return invalid("no such state transition");
  const uint32_t required = edge->required.of[service(type)];
  if ((given & required) != required) return invalid("a required attribute is missing");
  if ((given & ~(required | edge->optional.of[service(type)])) != 0) {
    return invalid("an attribute is not allowed in this transition");
  }
  return {};
}

struct Bound {
  uint32_t mask;
  uint32_t QpAttr::*wide;
  uint8_t QpAttr::*narrow;
  uint32_t least;
  uint32_t most;
  const char* text;
};

constexpr Bound kBounds[] = {
    {kQpPort, nullptr, &QpAttr::port_num, 1, 1, "port is not 1"},
    {kQpPathMtu, nullptr, &QpAttr::path_mtu, 1, 5, "path MTU is not one of 256 to 4096"},
    {kQpTimeout, nullptr, &QpAttr::timeout, 0, 31, "timeout above 31"},
    {kQpRetryCnt, nullptr, &QpAttr::retry_cnt, 0, 7, "retry count above 7"},
    {kQpRnrRetry, nullptr, &QpAttr::rnr_retry, 0, 7, "RNR retry count above 7"},
    {kQpMinRnrTimer, nullptr, &QpAttr::min_rnr_timer, 0, 31, "RNR timer above 31"},
    {kQpMaxQpRdAtomic, nullptr, &QpAttr::max_rd_atomic, 0, limits::kMaxRdAtomic,
     "max_rd_atomic above the limit"},
    {kQpMaxDestRdAtomic, nullptr, &QpAttr::max_dest_rd_atomic, 0, limits::kMaxRdAtomic,
     "max_dest_rd_atomic above the limit"},
    {kQpDestQpn, &QpAttr::dest_qpn, nullptr, 0, 0xffffff, "destination QPN has more than 24 bits"},
};

Status check_values(const QpAttr& attr, uint32_t mask) noexcept {
  for (const Bound& bound : kBounds) {
    if ((mask & bound.mask) == 0) continue;
    const uint32_t value = bound.wide != nullptr ? attr.*bound.wide : attr.*bound.narrow;
    if (value < bound.least || value > bound.most) return invalid(bound.text);
  }
  if ((mask & kQpPkeyIndex) != 0 && attr.pkey_index != 0) return invalid("P_Key index is not 0");
  if ((mask & kQpAv) != 0 && attr.av.port_num > 1)
    return invalid("port of the address vector is not 1");
  if ((mask & kQpAv) != 0 && attr.av.is_global && attr.av.sgid_index >= limits::kGidTableLen) {
    return invalid("no such GID index");
  }
  return {};
}

}  // namespace

QpState target_state(QpState current, const QpAttr& attr, uint32_t mask) noexcept {
  return (mask & kQpState) != 0 ? attr.qp_state : current;
}

Status check_modify(QpType type, QpState current, const QpAttr& attr, uint32_t mask) noexcept {
  if ((mask & kQpCurState) != 0 && attr.cur_qp_state != current)
    return invalid("current state is another");
  if (Status status = check_edge(type, current, target_state(current, attr, mask), mask); !status)
    return status;
  return check_values(attr, mask);
}

}  // namespace tbt::verbs
