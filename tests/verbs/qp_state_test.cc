// All 7 x 7 edges for each service (C-020 to C-023): which exist, and what each needs.
#include "verbs/qp_state.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace tbt::verbs {
namespace {

using enum QpState;

constexpr QpState kAll[] = {kReset, kInit, kRtr, kRts, kSqd, kSqe, kErr};
constexpr QpType kTypes[] = {QpType::kRc, QpType::kUc, QpType::kUd};

QpAttr good_attributes(QpState to) {
  QpAttr attr;
  attr.qp_state = to;
  attr.port_num = 1;
  attr.path_mtu = 5;
  return attr;
}

uint32_t needed(QpType type, QpState from, QpState to) {
  const bool ud = type == QpType::kUd;
  const bool rc = type == QpType::kRc;
  if (from == kReset && to == kInit)
    return kQpPkeyIndex | kQpPort | (ud ? kQpQkey : kQpAccessFlags);
  if (from == kInit && to == kRtr && !ud) {
    return kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn |
           (rc ? kQpMaxDestRdAtomic | kQpMinRnrTimer : 0);
  }
  if (from == kRtr && to == kRts) {
    return kQpSqPsn | (rc ? kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic : 0);
  }
  return 0;
}

bool edge_exists(QpType type, QpState from, QpState to) {
  if (to == kReset) return true;
  if (to == kErr) return from != kReset;
  if (from == kSqe && to == kRts) return type != QpType::kRc;
  static const std::set<std::pair<QpState, QpState>> kEdges = {
      {kReset, kInit}, {kInit, kInit}, {kInit, kRtr}, {kRtr, kRts},
      {kRts, kRts},    {kRts, kSqd},   {kSqd, kRts},  {kSqd, kSqd}};
  return kEdges.contains({from, to});
}

TEST(QpState, EveryCellOfTheTableIsAsTheSpecificationHasIt) {
  for (QpType type : kTypes) {
    for (QpState from : kAll) {
      for (QpState to : kAll) {
        const uint32_t mask = kQpState | needed(type, from, to);
        EXPECT_EQ(check_modify(type, from, good_attributes(to), mask).ok(),
                  edge_exists(type, from, to))
            << qp_state_name(from) << " -> " << qp_state_name(to) << " type " << int(type);
      }
    }
  }
}

TEST(QpState, EachRequiredAttributeIsRequired) {
  for (QpType type : kTypes) {
    for (auto [from, to] : {std::pair{kReset, kInit}, {kInit, kRtr}, {kRtr, kRts}}) {
      const uint32_t all = needed(type, from, to);
      for (uint32_t bit = 1; bit <= kQpDestQpn; bit <<= 1) {
        if ((all & bit) == 0) continue;
        EXPECT_EQ(check_modify(type, from, good_attributes(to), kQpState | (all & ~bit)).code(),
                  EINVAL);
      }
    }
  }
}

TEST(QpState, AttributesThatDoNotBelongAreRefused) {
  EXPECT_EQ(check_modify(QpType::kRc, kRts, good_attributes(kRts), kQpState | kQpSqPsn).code(),
            EINVAL);
  EXPECT_EQ(check_modify(QpType::kUd, kReset, good_attributes(kInit),
                         kQpState | kQpPkeyIndex | kQpPort | kQpQkey | kQpAccessFlags)
                .code(),
            EINVAL);
  EXPECT_EQ(check_modify(QpType::kRc, kRts, good_attributes(kErr), kQpState | kQpTimeout).code(),
            EINVAL);
}

TEST(QpState, ValuesOutOfRangeAreRefused) {
  const uint32_t rtr = kQpState | needed(QpType::kRc, kInit, kRtr);
  const uint32_t rts = kQpState | needed(QpType::kRc, kRtr, kRts);
  auto refused = [](QpState from, QpState to, uint32_t mask, auto change) {
    QpAttr attr = good_attributes(to);
    change(attr);
    return check_modify(QpType::kRc, from, attr, mask).code() == EINVAL;
  };
  EXPECT_TRUE(refused(kInit, kRtr, rtr, [](QpAttr& a) { a.path_mtu = 6; }));
  EXPECT_TRUE(refused(kInit, kRtr, rtr, [](QpAttr& a) { a.path_mtu = 0; }));
  EXPECT_TRUE(refused(kInit, kRtr, rtr, [](QpAttr& a) { a.min_rnr_timer = 32; }));
  EXPECT_TRUE(refused(kInit, kRtr, rtr, [](QpAttr& a) { a.dest_qpn = 1 << 24; }));
  EXPECT_TRUE(refused(kRtr, kRts, rts, [](QpAttr& a) { a.timeout = 32; }));
  EXPECT_TRUE(refused(kRtr, kRts, rts, [](QpAttr& a) { a.retry_cnt = 8; }));
  EXPECT_TRUE(refused(kRtr, kRts, rts, [](QpAttr& a) { a.rnr_retry = 8; }));
  EXPECT_TRUE(
      refused(kRtr, kRts, rts, [](QpAttr& a) { a.max_rd_atomic = limits::kMaxRdAtomic + 1; }));
  EXPECT_TRUE(refused(kReset, kInit, kQpState | needed(QpType::kRc, kReset, kInit),
                      [](QpAttr& a) { a.port_num = 2; }));
}

TEST(QpState, AWrongHintOfTheCurrentStateIsRefused) {
  QpAttr attr = good_attributes(kErr);
  attr.cur_qp_state = kRtr;
  EXPECT_EQ(check_modify(QpType::kRc, kRts, attr, kQpState | kQpCurState).code(), EINVAL);
  attr.cur_qp_state = kRts;
  EXPECT_TRUE(check_modify(QpType::kRc, kRts, attr, kQpState | kQpCurState).ok());
}

}  // namespace
}  // namespace tbt::verbs
