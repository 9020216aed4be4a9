# Read by CMake inside the project llama.cpp (CMAKE_PROJECT_llama.cpp_INCLUDE): what its programs share takes half of the
# build, and its Python package does not use it.
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "" FORCE)
