#include "rail/emulated/iova_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>

namespace tbt::rail::emulated {

// A file that shrinks while it is mapped kills whoever touches what is gone, so it must be one that
// cannot (QEMU seals its memfds). Mapping more than is backed by memory costs nothing.
Result<std::map<IovaTable::FileKey, IovaTable::File>::iterator> IovaTable::open_file(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return Status(errno, "fstat failed");
  const auto found = files_.find({info.st_dev, info.st_ino});
  if (found != files_.end()) return found;
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return Status(EPERM, "the machine's memory is not a sealed memfd");
  }
  File file;
  file.bytes = static_cast<size_t>(info.st_size);
  if (file.bytes == 0) return Status(EINVAL, "the machine's memory is empty");
  void* const base =
      ::mmap(nullptr, file.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (base == MAP_FAILED) return Status(errno, "cannot map the machine's memory");
  file.base = static_cast<std::byte*>(base);
  file.fd.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  return files_.emplace(FileKey{info.st_dev, info.st_ino}, std::move(file)).first;
}

bool IovaTable::overlaps(uint64_t iova, uint64_t bytes) const noexcept {
  const auto after = pieces_.lower_bound(iova);
  if (after != pieces_.end() && after->first - iova < bytes) return true;
  if (after == pieces_.begin()) return false;
  const auto before = std::prev(after);
  return iova - before->first < before->second.bytes;
}

Status IovaTable::map(uint64_t iova, uint64_t bytes, const sys::UniqueFd& fd, uint64_t file_offset,
                      bool writeable) {
  const bool whole = bytes != 0 && iova % kPageBytes == 0 && bytes % kPageBytes == 0;
  if (!whole || iova > UINT64_MAX - (bytes - 1)) return Status(EINVAL, "not whole pages");
  if (overlaps(iova, bytes)) return Status(EEXIST, "something is mapped there");
  if (pieces_.size() >= kPiecesMax) return Status(ENOSPC, "too many mappings");
  Piece piece{bytes, nullptr, writeable, files_.end()};
  if (fd) {
    const auto file = open_file(fd.get());
    if (!file && !writeable && file.error().code() == EPERM) {
      pieces_.emplace(iova, piece);
      return {};
    }
    if (!file) return file.error();
    piece.file = file.value();
    const File& whole_file = piece.file->second;
    if (file_offset > whole_file.bytes || bytes > whole_file.bytes - file_offset) {
      release(piece);
      return Status(EINVAL, "outside the file");
    }
    piece.base = whole_file.base + file_offset;
    piece.file->second.pieces++;
    bytes_ += bytes;
  }
  pieces_.emplace(iova, piece);
  return {};
}

// Unmaps the file with its last piece.
void IovaTable::release(const Piece& piece) noexcept {
  if (piece.file == files_.end()) return;
  File& file = piece.file->second;
  if (piece.base != nullptr) {
    file.pieces--;
    bytes_ -= piece.bytes;
  }
  if (file.pieces != 0) return;
  ::munmap(file.base, file.bytes);
  files_.erase(piece.file);
}

Status IovaTable::unmap(uint64_t iova, uint64_t bytes) {
  if (bytes == 0 || iova > UINT64_MAX - (bytes - 1)) return Status(EINVAL, "not a range");
  const uint64_t last = iova + (bytes - 1);
  const auto begin = pieces_.lower_bound(iova);
  if (begin != pieces_.begin()) {
    const auto before = std::prev(begin);
    if (iova - before->first < before->second.bytes) return Status(EINVAL, "cuts a mapping");
  }
  auto end = begin;
  for (; end != pieces_.end() && end->first <= last; ++end) {
    if (end->second.bytes - 1 > last - end->first) return Status(EINVAL, "cuts a mapping");
  }
  drop_joined(iova, last);
  for (auto it = begin; it != end; ++it) release(it->second);
  pieces_.erase(begin, end);
  last_ = pieces_.end();
  return {};
}

void IovaTable::clear() noexcept {
  drop_joined(0, UINT64_MAX);
  for (const auto& [iova, piece] : pieces_) release(piece);
  pieces_.clear();
  last_ = pieces_.end();
}

std::byte* IovaTable::find(uint64_t iova, uint64_t bytes, Reach reach) noexcept {
  if (last_ == pieces_.end() || iova - last_->first >= last_->second.bytes) {
    auto after = pieces_.upper_bound(iova);
    if (after == pieces_.begin()) return nullptr;
    last_ = std::prev(after);
  }
  const uint64_t into = iova - last_->first;
  if (!allows(last_->second, reach) || into >= last_->second.bytes) return nullptr;
  std::byte* const found = last_->second.base + into;
  // What goes on in the next piece may lie behind this one in the file, too.
  bool together = true;
  uint64_t reached = last_->second.bytes - into;
  for (auto next = std::next(last_); reached < bytes; ++next) {
    const bool goes_on = next != pieces_.end() && next->first == iova + reached;
    if (!goes_on || !allows(next->second, reach)) return nullptr;
    together = together && next->second.base == found + reached;
    reached += next->second.bytes;
  }
  return together ? found : join(iova, bytes);
}

// All of the range is mapped, in pieces.
std::byte* IovaTable::join(uint64_t iova, uint64_t bytes) noexcept {
  if (bytes > kJoinedBytesMax) return nullptr;
  const uint64_t into = iova % kPageBytes;
  const Range range{iova - into, (into + bytes + kPageBytes - 1) / kPageBytes * kPageBytes};
  const auto known = joined_.find(range);
  if (known != joined_.end()) return known->second + into;
  if (joined_.size() >= kJoinedMax) return nullptr;
  void* const reserved =
      ::mmap(nullptr, range.second, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return nullptr;
  auto* const base = static_cast<std::byte*>(reserved);
  if (!map_side_by_side(range, base)) {
    ::munmap(base, range.second);
    return nullptr;
  }
  joined_.emplace(range, base);
  return base + into;
}

bool IovaTable::map_side_by_side(const Range& range, std::byte* base) noexcept {
  for (uint64_t done = 0; done < range.second;) {
    const auto& [start, piece] = *std::prev(pieces_.upper_bound(range.first + done));
    const uint64_t into = range.first + done - start;
    const uint64_t part = std::min(piece.bytes - into, range.second - done);
    const File& file = piece.file->second;
    const auto at = static_cast<off_t>(piece.base - file.base) + static_cast<off_t>(into);
    const void* const mapped = ::mmap(base + done, part, PROT_READ | PROT_WRITE,
                                      MAP_SHARED | MAP_FIXED | MAP_NORESERVE, file.fd.get(), at);
    if (mapped == MAP_FAILED) return false;
    done += part;
  }
  return true;
}

// What lies in [first, last], or partly.
void IovaTable::drop_joined(uint64_t first, uint64_t last) noexcept {
  std::erase_if(joined_, [&](const auto& entry) {
    const auto& [start, bytes] = entry.first;
    if (start > last || start + (bytes - 1) < first) return false;
    ::munmap(entry.second, bytes);
    return true;
  });
}

}  // namespace tbt::rail::emulated
