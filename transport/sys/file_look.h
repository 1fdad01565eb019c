// Small looks into a file system: /sys, /dev, and trees that look like them. None of them fails:
// what cannot be read is not there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tbt::sys {

bool exists(const std::string& path);
// The first line without white space at its end; empty if there is none.
std::string first_line(const std::string& path);
// The first line as a hexadecimal number with or without 0x; 0 if it is none.
uint32_t hex_in(const std::string& path);
// Names in a folder in order, without "." and "..".
std::vector<std::string> names_in(const std::string& folder);
// The last part of what a link points to; empty if it is no link.
std::string link_target_name(const std::string& path);

}  // namespace tbt::sys
