// IovaTable: the memory that a virtual machine lets its device reach, as vfio-user's DMA_MAP tells
// it. Without an IOMMU in the machine that is a handful of large pieces; with one it is thousands
// of single pages of the same file. So each file is mapped once, whole, and a piece is a pointer
// into that mapping; no descriptor is kept.
//
// One thread. A pointer that was found is valid until its piece is taken away.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::rail::emulated {

class IovaTable {
 public:
  static constexpr uint64_t kPageBytes = 4096;
  static constexpr size_t kPiecesMax = 65535;  // max_dma_maps of the protocol

  IovaTable() = default;
  IovaTable(const IovaTable&) = delete;
  IovaTable& operator=(const IovaTable&) = delete;
  ~IovaTable() { clear(); }

  // Without a descriptor the piece is taken note of and cannot be reached; so is one that may not
  // be written. EINVAL: not whole pages, or not in the file. EEXIST: overlaps another piece.
  // ENOSPC: too many. EPERM: the file could shrink under us.
  Status map(uint64_t iova, uint64_t bytes, const sys::UniqueFd& fd, uint64_t file_offset,
             bool writeable);
  // Takes away the pieces inside the range; there may be none. EINVAL: one is cut by its edge.
  Status unmap(uint64_t iova, uint64_t bytes);
  void clear() noexcept;

  // Memory behind [iova, iova + bytes) if it is in one piece here, else nullptr.
  [[nodiscard]] std::byte* find(uint64_t iova, uint64_t bytes) noexcept;
  [[nodiscard]] size_t pieces() const noexcept { return pieces_.size(); }
  [[nodiscard]] size_t files() const noexcept { return files_.size(); }

 private:
  struct FileKey {
    dev_t device = 0;
    ino_t inode = 0;
    auto operator<=>(const FileKey&) const = default;
  };
  struct File {
    std::byte* base = nullptr;
    size_t bytes = 0;
    size_t pieces = 0;  // that point into it
  };
  struct Piece {
    uint64_t bytes = 0;
    std::byte* base = nullptr;  // nullptr: cannot be reached
    std::map<FileKey, File>::iterator file;
  };
  using Pieces = std::map<uint64_t, Piece>;

  Result<std::map<FileKey, File>::iterator> open_file(int fd);
  void release(const Piece& piece) noexcept;
  [[nodiscard]] bool overlaps(uint64_t iova, uint64_t bytes) const noexcept;

  std::map<FileKey, File> files_;
  Pieces pieces_;
  Pieces::iterator last_ = pieces_.end();  // where the last address was found
};

}  // namespace tbt::rail::emulated
