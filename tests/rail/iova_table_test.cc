// What a virtual machine lets its device reach, and what it does not.
#include "rail/emulated/iova_table.h"

#include <dirent.h>

#include "vfio_user_fixture.h"

namespace tbt::rail::emulated::test {
namespace {

constexpr uint64_t kPage = IovaTable::kPageBytes;

size_t open_descriptors() {
  size_t n = 0;
  DIR* const dir = ::opendir("/proc/self/fd");
  while (::readdir(dir) != nullptr) n++;
  ::closedir(dir);
  return n;
}

struct Memory {
  explicit Memory(size_t pages) : fd(make_guest_memory(pages * kPage)) {
    void* p = ::mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    EXPECT_NE(p, MAP_FAILED);
    base = static_cast<std::byte*>(p);
  }
  sys::UniqueFd fd;
  std::byte* base = nullptr;
};

TEST(IovaTable, AnAddressLeadsToItsPlaceInTheFile) {
  Memory memory(4);
  IovaTable table;
  ASSERT_TRUE(table.map(0x80000, 2 * kPage, memory.fd, kPage, true));
  std::byte* const found = table.find(0x80000 + kPage + 5, 10);
  ASSERT_NE(found, nullptr);
  *found = std::byte{0x5a};
  EXPECT_EQ(memory.base[2 * kPage + 5], std::byte{0x5a});
  EXPECT_NE(table.find(0x80000, 2 * kPage), nullptr);
  EXPECT_EQ(table.find(0x80000, 2 * kPage + 1), nullptr);
  EXPECT_EQ(table.find(0x80000 + 2 * kPage, 1), nullptr);
  EXPECT_EQ(table.find(0x80000 - 1, 1), nullptr);
  EXPECT_EQ(table.find(0, 1), nullptr);
  EXPECT_EQ(table.find(0x80000 + kPage, ~uint64_t{0}), nullptr);
}

TEST(IovaTable, PiecesThatLieTogetherInTheFileAreOne) {
  Memory memory(4);
  IovaTable table;
  ASSERT_TRUE(table.map(0 * kPage, kPage, memory.fd, 0 * kPage, true));
  ASSERT_TRUE(table.map(1 * kPage, kPage, memory.fd, 1 * kPage, true));
  EXPECT_EQ(table.find(kPage, 1), table.find(0, 2 * kPage) + kPage);
  EXPECT_EQ(table.joined(), 0u);
  EXPECT_EQ(table.bytes(), 2 * kPage);
}

// Pages in the opposite order, as an IOMMU may give them to a ring that is larger than one.
class ScatteredPages : public ::testing::Test {
 protected:
  static constexpr size_t kPages = 16;
  ScatteredPages() {
    for (size_t i = 0; i < kPages; i++) {
      EXPECT_TRUE(table_.map(kAt + i * kPage, kPage, memory_.fd, (kPages - 1 - i) * kPage, true));
    }
  }
  // Of byte `at` behind kAt.
  std::byte& in_file(size_t at) {
    return memory_.base[(kPages - 1 - at / kPage) * kPage + at % kPage];
  }

  static constexpr uint64_t kAt = 0x1'0000'0000;
  Memory memory_{kPages};
  IovaTable table_;
};

TEST_F(ScatteredPages, AreJoinedSideBySide) {
  std::byte* const ring = table_.find(kAt, kPages * kPage);
  ASSERT_NE(ring, nullptr);
  for (size_t at = 0; at < kPages * kPage; at += 16) {
    ring[at] = static_cast<std::byte>(at / 64);
    ASSERT_EQ(in_file(at), static_cast<std::byte>(at / 64)) << at;
  }
  in_file(3 * kPage) = std::byte{0x77};
  EXPECT_EQ(ring[3 * kPage], std::byte{0x77});
  EXPECT_EQ(table_.find(kAt, kPages * kPage), ring);
  EXPECT_EQ(table_.joined(), 1u);
}

TEST_F(ScatteredPages, AFrameMayCrossTheEdgeOfAPage) {
  std::byte* const frame = table_.find(kAt + kPage - 10, 20);
  ASSERT_NE(frame, nullptr);
  for (size_t i = 0; i < 20; i++) frame[i] = static_cast<std::byte>(100 + i);
  EXPECT_EQ(in_file(kPage - 1), std::byte{109});
  EXPECT_EQ(in_file(kPage), std::byte{110});
  EXPECT_EQ(table_.find(kAt + kPages * kPage - 10, 20), nullptr);
}

TEST_F(ScatteredPages, WhatWasJoinedGoesWithAnyOfItsPages) {
  ASSERT_NE(table_.find(kAt, 3 * kPage), nullptr);
  ASSERT_NE(table_.find(kAt + 4 * kPage, 3 * kPage), nullptr);
  ASSERT_TRUE(table_.unmap(kAt + 2 * kPage, kPage));
  EXPECT_EQ(table_.joined(), 1u);
  EXPECT_EQ(table_.find(kAt, 3 * kPage), nullptr);
  EXPECT_EQ(table_.bytes(), (kPages - 1) * kPage);
  Memory other(1);  // in another file
  ASSERT_TRUE(table_.map(kAt + 2 * kPage, kPage, other.fd, 0, true));
  std::byte* const again = table_.find(kAt, 3 * kPage);
  ASSERT_NE(again, nullptr);
  again[2 * kPage] = std::byte{0x42};
  EXPECT_EQ(other.base[0], std::byte{0x42});
  table_.clear();
  EXPECT_EQ(table_.joined(), 0u);
  EXPECT_EQ(table_.files(), 0u);
  EXPECT_EQ(table_.bytes(), 0u);
}

// A machine that asks for ever more of it only loses its own device.
TEST_F(ScatteredPages, ThereIsABoundToJoining) {
  size_t found = 0;
  for (uint64_t into = 0; into < 2; into++) {
    for (uint64_t first = 0; first < kPages; first++) {
      for (uint64_t pages = 2; first + pages <= kPages; pages++) {
        found += table_.find(kAt + first * kPage + into, pages * kPage - into) != nullptr ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(found, 2 * table_.joined());  // the same, whether from its first byte or its second
  EXPECT_EQ(table_.joined(), kPages * (kPages - 1) / 2);
  IovaTable large;
  constexpr size_t kMany = IovaTable::kJoinedBytesMax / kPage + 1;
  Memory memory(kMany);
  for (size_t i = 0; i < kMany; i++) {
    ASSERT_TRUE(large.map(i * kPage, kPage, memory.fd, (kMany - 1 - i) * kPage, true));
  }
  EXPECT_NE(large.find(0, IovaTable::kJoinedBytesMax), nullptr);
  EXPECT_EQ(large.find(0, IovaTable::kJoinedBytesMax + 1), nullptr);
  size_t pairs = 0;
  for (size_t i = 0; i + 2 < kMany; i++) {
    for (uint64_t pages = 2; pages < 6 && i + pages < kMany; pages++) {
      pairs += large.find(i * kPage, pages * kPage) != nullptr ? 1 : 0;
    }
  }
  EXPECT_EQ(large.joined(), IovaTable::kJoinedMax);
  EXPECT_EQ(pairs, IovaTable::kJoinedMax - 1);
}

TEST(IovaTable, ThousandsOfPagesNeedOneMappingAndOneDescriptor) {
  constexpr size_t kPages = 2000;
  Memory memory(kPages);
  IovaTable table;
  const size_t before = open_descriptors();
  for (size_t i = 0; i < kPages; i++) {  // scattered, each with its own descriptor
    const sys::UniqueFd fd = dup_of(memory.fd);
    ASSERT_TRUE(table.map(2 * i * kPage, kPage, fd, (kPages - 1 - i) * kPage, true));
  }
  EXPECT_EQ(open_descriptors(), before + 1);
  EXPECT_EQ(table.files(), 1u);
  for (size_t i = 0; i < kPages; i++) {
    memory.base[(kPages - 1 - i) * kPage] = static_cast<std::byte>(i);
    ASSERT_EQ(*table.find(2 * i * kPage, kPage), static_cast<std::byte>(i));
  }
  ASSERT_TRUE(table.unmap(0, 2 * kPages * kPage));
  EXPECT_EQ(table.pieces(), 0u);
  EXPECT_EQ(table.files(), 0u);
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(table.find(0, 1), nullptr);
}

TEST(IovaTable, WhatCannotBeReachedIsNotFound) {
  Memory memory(1);
  IovaTable table;
  ASSERT_TRUE(table.map(0, kPage, sys::UniqueFd(), 0, true));
  ASSERT_TRUE(table.map(kPage, kPage, memory.fd, 0, false));  // read only
  EXPECT_EQ(table.find(0, 1), nullptr);
  EXPECT_EQ(table.find(kPage, 1), nullptr);
  EXPECT_NE(table.find(kPage, kPage, Reach::kRead), nullptr);
  EXPECT_EQ(table.find(0, 2 * kPage, Reach::kRead), nullptr);
  EXPECT_EQ(table.map(0, kPage, memory.fd, 0, true).code(), EEXIST);
  EXPECT_TRUE(table.unmap(0, 2 * kPage));
}

TEST(IovaTable, RefusesWhatDoesNotFit) {
  Memory memory(2);
  IovaTable table;
  EXPECT_EQ(table.map(0, 0, memory.fd, 0, true).code(), EINVAL);
  EXPECT_EQ(table.map(1, kPage, memory.fd, 0, true).code(), EINVAL);
  EXPECT_EQ(table.map(0, kPage + 1, memory.fd, 0, true).code(), EINVAL);
  EXPECT_EQ(table.map(0, 3 * kPage, memory.fd, 0, true).code(), EINVAL);
  EXPECT_EQ(table.map(0, kPage, memory.fd, 2 * kPage, true).code(), EINVAL);
  EXPECT_EQ(table.map(0, 2 * kPage, memory.fd, ~uint64_t{0} - kPage + 1, true).code(), EINVAL);
  EXPECT_EQ(table.map(~uint64_t{0} - kPage + 1, 2 * kPage, memory.fd, 0, true).code(), EINVAL);
  EXPECT_EQ(table.files(), 0u);
  EXPECT_TRUE(table.map(~uint64_t{0} - kPage + 1, kPage, memory.fd, 0, true));  // the last page
  EXPECT_NE(table.find(~uint64_t{0}, 1), nullptr);
  EXPECT_EQ(table.find(~uint64_t{0}, 2), nullptr);
}

TEST(IovaTable, OverlapsAreRefused) {
  Memory memory(8);
  IovaTable table;
  ASSERT_TRUE(table.map(2 * kPage, 2 * kPage, memory.fd, 0, true));
  for (const uint64_t start : {1, 2, 3}) {
    EXPECT_EQ(table.map(start * kPage, 2 * kPage, memory.fd, 0, true).code(), EEXIST) << start;
  }
  EXPECT_EQ(table.map(0, 8 * kPage, memory.fd, 0, true).code(), EEXIST);
  EXPECT_TRUE(table.map(0, 2 * kPage, memory.fd, 0, true));
  EXPECT_TRUE(table.map(4 * kPage, 2 * kPage, memory.fd, 0, true));
}

TEST(IovaTable, UnmapTakesWholePiecesOnly) {
  Memory memory(8);
  IovaTable table;
  ASSERT_TRUE(table.map(2 * kPage, 2 * kPage, memory.fd, 0, true));
  EXPECT_EQ(table.unmap(2 * kPage, kPage).code(), EINVAL);
  EXPECT_EQ(table.unmap(3 * kPage, kPage).code(), EINVAL);
  EXPECT_EQ(table.unmap(3 * kPage, 4 * kPage).code(), EINVAL);
  EXPECT_EQ(table.unmap(0, 0).code(), EINVAL);
  EXPECT_TRUE(table.unmap(0, 2 * kPage));  // nothing there
  EXPECT_NE(table.find(2 * kPage, 1), nullptr);
  EXPECT_TRUE(table.unmap(0, ~uint64_t{0}));
  EXPECT_EQ(table.find(2 * kPage, 1), nullptr);
}

// Touching a page that was cut off would kill the process.
TEST(IovaTable, AFileThatCouldShrinkIsRefused) {
  const auto open_file = make_guest_memory(kPage, 0);
  const sys::UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  IovaTable table;
  EXPECT_EQ(table.map(0, kPage, open_file, 0, true).code(), EPERM);
  EXPECT_EQ(table.map(0, kPage, null, 0, true).code(), EPERM);
  EXPECT_EQ(table.pieces(), 0u);
}

}  // namespace
}  // namespace tbt::rail::emulated::test
