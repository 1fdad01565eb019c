// The state table against a second one: each of the 147 cells (from, to, service) with every set of
// attributes that is legal anywhere (C-020 to C-023, C-034).
//
// The table of the room is not used here: this one is written from the manual page of
// ibv_modify_qp, service by service.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "verbs/qp_state.h"

namespace tbt::verbs {
namespace {

using enum QpState;

constexpr QpState kStates[] = {kReset, kInit, kRtr, kRts, kSqd, kSqe, kErr};
constexpr QpType kServices[] = {QpType::kRc, QpType::kUc, QpType::kUd};
constexpr uint32_t kBits = 21;

struct Row {
  QpState from;
  QpState to;
  uint32_t needs;
  uint32_t takes;  // beside what it needs
};

const std::vector<Row>& rows(QpType type) {
  static const std::vector<Row> kRc = {
      {kReset, kInit, kQpPkeyIndex | kQpPort | kQpAccessFlags, 0},
      {kInit, kInit, 0, kQpPkeyIndex | kQpPort | kQpAccessFlags},
      {kInit, kRtr,
       kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn | kQpMaxDestRdAtomic | kQpMinRnrTimer,
       kQpAccessFlags | kQpPkeyIndex},
      {kRtr, kRts, kQpSqPsn | kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic,
       kQpAccessFlags | kQpMinRnrTimer | kQpPathMigState},
      {kRts, kRts, 0, kQpAccessFlags | kQpMinRnrTimer | kQpPathMigState},
      {kRts, kSqd, 0, kQpEnSqdAsyncNotify},
      {kSqd, kRts, 0, kQpAccessFlags | kQpMinRnrTimer | kQpPathMigState},
      {kSqd, kSqd, 0,
       kQpPort | kQpAv | kQpTimeout | kQpRetryCnt | kQpRnrRetry | kQpMaxQpRdAtomic |
           kQpMaxDestRdAtomic | kQpAccessFlags | kQpPkeyIndex | kQpMinRnrTimer | kQpPathMigState}};
  static const std::vector<Row> kUc = {
      {kReset, kInit, kQpPkeyIndex | kQpPort | kQpAccessFlags, 0},
      {kInit, kInit, 0, kQpPkeyIndex | kQpPort | kQpAccessFlags},
      {kInit, kRtr, kQpAv | kQpPathMtu | kQpDestQpn | kQpRqPsn, kQpAccessFlags | kQpPkeyIndex},
      {kRtr, kRts, kQpSqPsn, kQpAccessFlags | kQpPathMigState},
      {kRts, kRts, 0, kQpAccessFlags | kQpPathMigState},
      {kRts, kSqd, 0, kQpEnSqdAsyncNotify},
      {kSqd, kRts, 0, kQpAccessFlags | kQpPathMigState},
      {kSqd, kSqd, 0, kQpAv | kQpAccessFlags | kQpPkeyIndex | kQpPathMigState},
      {kSqe, kRts, 0, kQpAccessFlags}};
  static const std::vector<Row> kUd = {{kReset, kInit, kQpPkeyIndex | kQpPort | kQpQkey, 0},
                                       {kInit, kInit, 0, kQpPkeyIndex | kQpPort | kQpQkey},
                                       {kInit, kRtr, 0, kQpPkeyIndex | kQpQkey},
                                       {kRtr, kRts, kQpSqPsn, kQpQkey},
                                       {kRts, kRts, 0, kQpQkey},
                                       {kRts, kSqd, 0, kQpEnSqdAsyncNotify},
                                       {kSqd, kRts, 0, kQpQkey},
                                       {kSqd, kSqd, 0, kQpPkeyIndex | kQpQkey},
                                       {kSqe, kRts, 0, kQpQkey}};
  return type == QpType::kRc ? kRc : type == QpType::kUc ? kUc : kUd;
}

bool legal(QpType type, QpState from, QpState to, uint32_t attributes) {
  if (to == kReset) return attributes == 0;
  if (to == kErr) return from != kReset && attributes == 0;
  for (const Row& row : rows(type)) {
    if (row.from != from || row.to != to) continue;
    return (attributes & row.needs) == row.needs && (attributes & ~(row.needs | row.takes)) == 0;
  }
  return false;
}

// Every set that is legal for some edge, and each of those with one bit more or one less.
std::set<uint32_t> attribute_sets() {
  std::set<uint32_t> sets = {0};
  for (QpType type : kServices) {
    for (const Row& row : rows(type)) {
      for (uint32_t part = row.takes;; part = (part - 1) & row.takes) {
        sets.insert(row.needs | part);
        if (part == 0) break;
      }
      for (uint32_t bit = 0; bit < kBits; ++bit) {
        if (bit > 1) sets.insert((row.needs | row.takes) ^ (1u << bit));
        if (bit > 1) sets.insert(row.needs ^ (1u << bit));
      }
    }
  }
  return sets;
}

QpAttr attributes_to(QpState to, QpState hint) {
  QpAttr attr;
  attr.qp_state = to;
  attr.cur_qp_state = hint;
  attr.port_num = 1;
  attr.path_mtu = 5;
  return attr;
}

TEST(QpStateMasks, EveryCellWithEverySetOfAttributesThatIsLegalAnywhere) {
  const std::set<uint32_t> sets = attribute_sets();
  ASSERT_GT(sets.size(), 2000u);
  uint32_t wrong = 0;
  for (QpType type : kServices) {
    for (QpState from : kStates) {
      for (QpState to : kStates) {
        const QpAttr attr = attributes_to(to, from);
        for (uint32_t attributes : sets) {
          for (uint32_t hint : {0u, uint32_t{kQpCurState}}) {
            const uint32_t mask = kQpState | hint | attributes;
            if (check_modify(type, from, attr, mask).ok() == legal(type, from, to, attributes))
              continue;
            if (++wrong < 5)
              ADD_FAILURE() << qp_state_name(from) << " -> " << qp_state_name(to) << " type "
                            << int(type) << " mask " << std::hex << mask;
          }
        }
      }
    }
  }
  EXPECT_EQ(wrong, 0u);
}

TEST(QpStateMasks, ACallWithoutAStateIsTheEdgeToTheSameState) {
  for (QpType type : kServices) {
    for (QpState state : kStates) {
      QpAttr attr = attributes_to(kErr, state);  // not looked at
      for (uint32_t attributes : attribute_sets()) {
        const bool expected = legal(type, state, state, attributes);
        ASSERT_EQ(check_modify(type, state, attr, attributes).ok(), expected)
            << qp_state_name(state) << " type " << int(type) << " mask " << attributes;
      }
    }
  }
}

TEST(QpStateMasks, EveryWrongHintIsRefused) {
  for (QpType type : kServices) {
    for (QpState from : kStates) {
      for (QpState hint : kStates) {
        const bool accepted =
            check_modify(type, from, attributes_to(kReset, hint), kQpState | kQpCurState).ok();
        EXPECT_EQ(accepted, hint == from) << qp_state_name(from) << ' ' << qp_state_name(hint);
      }
    }
  }
}

TEST(QpStateMasks, NoCallLeadsToSqe) {
  for (QpType type : kServices) {
    for (QpState from : kStates) {
      if (from == kSqe) continue;
      for (uint32_t attributes : attribute_sets())
        ASSERT_FALSE(
            check_modify(type, from, attributes_to(kSqe, from), kQpState | attributes).ok());
    }
  }
}

struct Refusal {
  uint32_t bit;
  uint8_t QpAttr::*field;
  uint8_t least;
  uint8_t most;
};

// Each bounded attribute at its ends and just outside, in SQD, which takes most of them.
TEST(QpStateMasks, EveryBoundedAttributeAtItsBounds) {
  const Refusal kFields[] = {
      {kQpPort, &QpAttr::port_num, 1, 1},
      {kQpTimeout, &QpAttr::timeout, 0, 31},
      {kQpRetryCnt, &QpAttr::retry_cnt, 0, 7},
      {kQpRnrRetry, &QpAttr::rnr_retry, 0, 7},
      {kQpMinRnrTimer, &QpAttr::min_rnr_timer, 0, 31},
      {kQpMaxQpRdAtomic, &QpAttr::max_rd_atomic, 0, limits::kMaxRdAtomic},
      {kQpMaxDestRdAtomic, &QpAttr::max_dest_rd_atomic, 0, limits::kMaxRdAtomic}};
  for (const Refusal& f : kFields) {
    for (uint32_t value = 0; value <= 255; ++value) {
      QpAttr attr = attributes_to(kSqd, kSqd);
      attr.*f.field = static_cast<uint8_t>(value);
      const bool expected = value >= f.least && value <= f.most;
      EXPECT_EQ(check_modify(QpType::kRc, kSqd, attr, kQpState | f.bit).ok(), expected)
          << "bit " << f.bit << " value " << value;
    }
  }
}

}  // namespace
}  // namespace tbt::verbs
