// Messages tell every state and status from every other one.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tbt/types.h"

namespace tbt {
namespace {

// Of the values 0 to `last`: how many names, without those that are not known.
template <typename Value, typename Name>
size_t names_up_to(Value last, Name name_of) {
  std::set<std::string> names;
  for (int value = 0; value <= static_cast<int>(last); ++value) {
    const std::string name = name_of(static_cast<Value>(value));
    if (name != "unknown") names.insert(name);
  }
  return names.size();
}

TEST(Names, EveryStateHasOneOfItsOwn) {
  EXPECT_EQ(names_up_to(QpState::kErr, qp_state_name), 7u);
  EXPECT_STREQ(qp_state_name(QpState::kRts), "rts");
  EXPECT_STREQ(qp_state_name(static_cast<QpState>(99)), "unknown");
}

// Verbs have numbers between ours that no device of this kind says.
TEST(Names, EveryStatusHasOneOfItsOwn) {
  EXPECT_EQ(names_up_to(WcStatus::kGeneral, wc_status_name), 17u);
  EXPECT_STREQ(wc_status_name(WcStatus::kRnrRetryExc), "receiver-not-ready retry exceeded");
  EXPECT_STREQ(wc_status_name(static_cast<WcStatus>(99)), "unknown");
}

}  // namespace
}  // namespace tbt
