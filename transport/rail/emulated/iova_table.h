// IovaTable: the memory that a virtual machine lets its device reach, as vfio-user's DMA_MAP tells
// it. Without an IOMMU in the machine that is a handful of large pieces; with one it is thousands
// of single pages of the same file. So each file is mapped once, whole, and a piece is a pointer
// into that mapping; one descriptor a file is kept. What the device sees in one piece and the file
// has in several (a ring of more than a page) is mapped a second time, side by side.
//
// One thread. A pointer that was found is valid until its piece is taken away.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "rail/emulated/guest_port.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::rail::emulated {

class IovaTable {
 public:
  static constexpr uint64_t kPageBytes = 4096;
  static constexpr size_t kPiecesMax = 65535;  // max_dma_maps of the protocol
  // What is mapped side by side: rings of all sizes, and frames that cross the edge of a page.
  static constexpr size_t kJoinedMax = 1024;
  static constexpr uint64_t kJoinedBytesMax = uint64_t{2} << 20;

  IovaTable() = default;
  IovaTable(const IovaTable&) = delete;
  IovaTable& operator=(const IovaTable&) = delete;
  ~IovaTable() { clear(); }

  // Without a descriptor the piece is taken note of and cannot be reached; so is one that may only
  // be read (a ROM) in a file that could shrink under us, which is otherwise EPERM. EINVAL: not
  // whole pages, or not in the file. EEXIST: overlaps another piece. ENOSPC: too many.
  Status map(uint64_t iova, uint64_t bytes, const sys::UniqueFd& fd, uint64_t file_offset,
             bool writeable);
  // Takes away the pieces inside the range; there may be none. EINVAL: one is cut by its edge.
  Status unmap(uint64_t iova, uint64_t bytes);
  void clear() noexcept;

  // Memory behind [iova, iova + bytes), in one piece here; nullptr where not all of it is mapped
  // for that, or too much was asked for that lies scattered.
  [[nodiscard]] std::byte* find(uint64_t iova, uint64_t bytes,
                                Reach reach = Reach::kWrite) noexcept;
  // That can be reached.
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] size_t joined() const noexcept { return joined_.size(); }
  [[nodiscard]] size_t pieces() const noexcept { return pieces_.size(); }
  [[nodiscard]] size_t files() const noexcept { return files_.size(); }

 private:
  struct FileKey {
    dev_t device = 0;
    ino_t inode = 0;
    auto operator<=>(const FileKey&) const = default;
  };
  struct File {
    sys::UniqueFd fd;
    std::byte* base = nullptr;
    size_t bytes = 0;
    size_t pieces = 0;  // that point into it
  };
  struct Piece {
    uint64_t bytes = 0;
    std::byte* base = nullptr;  // nullptr: cannot be reached
    bool writeable = false;
    std::map<FileKey, File>::iterator file;
  };
  [[nodiscard]] static bool allows(const Piece& piece, Reach reach) noexcept {
    return piece.base != nullptr && (piece.writeable || reach == Reach::kRead);
  }
  using Pieces = std::map<uint64_t, Piece>;
  using Range = std::pair<uint64_t, uint64_t>;  // of whole pages: IOVA and bytes

  Result<std::map<FileKey, File>::iterator> open_file(int fd);
  void release(const Piece& piece) noexcept;
  std::byte* join(uint64_t iova, uint64_t bytes) noexcept;
  [[nodiscard]] bool map_side_by_side(const Range& range, std::byte* base) noexcept;
  void drop_joined(uint64_t first, uint64_t last) noexcept;
  [[nodiscard]] bool overlaps(uint64_t iova, uint64_t bytes) const noexcept;

  std::map<FileKey, File> files_;
  Pieces pieces_;
  std::map<Range, std::byte*> joined_;
  uint64_t bytes_ = 0;
  Pieces::iterator last_ = pieces_.end();  // where the last address was found
};

}  // namespace tbt::rail::emulated
