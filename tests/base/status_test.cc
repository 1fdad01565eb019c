// Status and Result: what a caller can see of them.
#include "tbt/status.h"

#include <gtest/gtest.h>

#include <memory>

namespace tbt {
namespace {

TEST(Status, DefaultIsSuccess) {
  const Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_TRUE(static_cast<bool>(status));
  EXPECT_EQ(status.code(), 0);
  EXPECT_EQ(status.text(), "");
}

TEST(Status, CarriesAnErrnoValueAndItsText) {
  const Status status(ENOENT, "no such cable");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), ENOENT);
  EXPECT_EQ(status.text(), "no such cable");
}

TEST(Result, HoldsAValueOrAnError) {
  const Result<int> good(7);
  EXPECT_TRUE(good.has_value());
  EXPECT_EQ(good.value(), 7);
  EXPECT_TRUE(good.error().ok());
  const Result<int> bad(Status(EINVAL, "no"));
  EXPECT_FALSE(bad.has_value());
  EXPECT_EQ(bad.error().code(), EINVAL);
}

TEST(Result, MovesOutWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(5));
  ASSERT_TRUE(result);
  EXPECT_EQ(**result, 5);
  const std::unique_ptr<int> taken = *std::move(result);
  EXPECT_EQ(*taken, 5);
}

}  // namespace
}  // namespace tbt
